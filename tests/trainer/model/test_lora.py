"""Adapters train as PEFT's do, on every layout; their checkpoints hold them alone and go on on other layouts.

The oracle is transformers with PEFT and torch's AdamW: `lora_runs.train_with_peft`. Every step sees all conversations
once, so that losses and gradients do not depend on the order or on the number of samples; gradients are clipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_jobs import CLIP, DISTOPT, FULL, HALF, PACKS, PP2, RANK, SP2, STEPS, TINY, TP2, VPP2, Runs, by_step, norms
from toy_runs import losses

pytestmark = pytest.mark.megatron

LAYOUTS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "padded": ("padded", 1, ("--micro-batch-size=4",)),
    "packed": ("packed", 1, ()),
    "full recomputation": ("packed", 1, FULL),
    "TP 2": ("packed", 2, TP2),
    "TP 2, sequence parallel": ("packed", 2, SP2),
    "TP 2, sequence parallel, recomputation": ("packed", 2, (*SP2, *FULL)),
    "PP 2": ("packed", 2, PP2),
    "PP 2, virtual stages": ("packed", 2, VPP2),
    "DP 2": ("padded", 2, ("--micro-batch-size=4",)),
    "DP 2, distributed optimizer": ("padded", 2, ("--micro-batch-size=4", *DISTOPT)),
    "TP 2 x PP 2, sequence parallel": ("packed", 4, (*SP2, *PP2)),
    "TP 2 x DP 2": ("padded", 4, ("--micro-batch-size=4", *TP2)),
}


def test_as_peft_trains_them_on_every_layout(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    for name, layout in LAYOUTS.items():
        runs.add(name, *layout)
    reference, outputs = runs.made(reference=True)
    expected = {step: loss for step, (loss, _) in enumerate(reference, start=1)}
    assert expected[STEPS] < expected[1] - 0.3, "it learns"
    assert min(norm for _, norm in reference) > 0.2
    assert any(norm > CLIP for _, norm in reference), "clipping is part of it"
    for name, output in outputs.items():
        found = by_step(output)
        assert len(found) == STEPS - 1, name
        for step, loss in found.items():
            assert loss == pytest.approx(expected[step], rel=2e-6), f"{name}, step {step}"
        np.testing.assert_allclose(norms(output), [norm for _, norm in reference], rtol=2e-5, err_msg=name)
    assert f"{PACKS} samples" in outputs["packed"], "a step is an epoch"
    halves = (64 + 128) * 2 + (64 + 64) * 2 + (64 + 96) * 3  # q and o, k and v, gate, up and down
    trained = RANK * TINY["num_hidden_layers"] * halves
    words = f"LoRA: rank 4, alpha 8 on q,k,v,o,gate,up,down: {trained:,} parameters are trained"
    assert words in outputs["packed"]


def test_other_models(tmp_path: Path) -> None:
    """Tied embeddings, biases, a padded vocabulary; experts, of which attention alone gets adapters; fused norms."""
    runs = Runs(tmp_path)
    experts: dict[str, Any] = {"model": "moe", "config": {"moe-aux-loss-coeff": 0.0}}
    dropout: dict[str, Any] = {"lora_dropout": 0.3, "lora_targets": "q,k,v,gate,up,down"}
    cases: dict[str, tuple[int, tuple[str, ...], dict[str, Any]]] = {
        "tied": (1, (), {"model": "qwen2"}),
        "tied, TP 2": (2, TP2, {"model": "qwen2"}),
        "tied, PP 2": (2, PP2, {"model": "qwen2"}),
        "moe": (1, (), experts),
        "moe, EP 2": (2, ("--expert-model-parallel-size=2",), experts),
        "moe, TP 2": (2, SP2, experts),
        # Transformer Engine's layers hold the norm before a linear layer, and are called with what it norms.
        "llama": (1, (), {}),
        "llama, fused norms, TP 2": (2, SP2, {"fused": True}),
        # Masks depend on the layout; recomputation draws the same ones again.
        "dropout": (2, TP2, dropout),
        "dropout, recomputation": (2, (*TP2, *FULL), dropout),
    }
    for name, (nproc, flags, options) in cases.items():
        batching = "padded" if "EP" in name else "packed"
        runs.add(name, batching, nproc, (f"--exit-interval={HALF}", *flags), **options)
    _, outputs = runs.made()
    assert "on q,k,v,o: " in outputs["moe"]
    assert "dropout 0.3 on q,k,v,gate,up,down: " in outputs["dropout"]
    assert abs(norms(outputs["dropout"])[0] - norms(outputs["llama"])[0]) > 1e-3
    for name, output in outputs.items():
        first = outputs[name.split(",")[0]]
        assert len(norms(output)) == HALF
        assert by_step(output)[HALF] < by_step(output)[1]
        np.testing.assert_allclose(norms(output), norms(first), rtol=1e-4, err_msg=name)
        np.testing.assert_allclose([*by_step(output).values()], [*by_step(first).values()], rtol=3e-6, err_msg=name)


def test_a_run_goes_on_on_another_layout(tmp_path: Path) -> None:
    saved = {"TP 1": (1, ()), "TP 2": (2, SP2), "virtual": (2, VPP2), "distributed": (2, DISTOPT)}
    resumed = {
        "TP 1": {"TP 1": (1, ()), "TP 2": (2, SP2), "PP 2": (2, PP2)},
        "TP 2": {"TP 1": (1, ())},
        "virtual": {"TP 2": (2, TP2)},
        "distributed": {"distributed": (2, DISTOPT)},
    }
    runs = Runs(tmp_path)
    runs.add("straight", "padded", 1, ())
    for name, (nproc, flags) in saved.items():
        save = (f"--save={tmp_path / name}", f"--exit-interval={HALF}", "--ckpt-format=torch_dist")
        runs.add(name, "padded", nproc, (*flags, *save))
    for name, others in resumed.items():
        for other, (nproc, flags) in others.items():
            runs.add(f"{name} → {other}", "padded", nproc, (*flags, f"--load={tmp_path / name}"))
    save = (f"--save={tmp_path / 'torch'}", f"--exit-interval={HALF}", "--ckpt-format=torch")
    runs.add("torch", "padded", 1, save)
    runs.add("torch → torch", "padded", 1, (f"--load={tmp_path / 'torch'}", "--ckpt-format=torch"))
    _, outputs = runs.made()
    straight = losses(outputs["straight"])
    for name, output in outputs.items():
        if "→" in name:
            assert sorted(losses(output)) == [*range(HALF + 1, STEPS + 1)], name
            for step, loss in by_step(output).items():
                assert loss == pytest.approx(straight[step], rel=3e-6), f"{name}, step {step}"
            np.testing.assert_allclose(norms(output), norms(outputs["straight"])[HALF:], rtol=1e-4, err_msg=name)
            assert "adapters: checkpoint in" in output, name
    check_contents(tmp_path / "TP 2")


def check_contents(folder: Path) -> None:
    """A checkpoint holds the adapters by PEFT's names and shapes, their optimizer state, and nothing of the base."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    (step,) = folder.glob("iter_*")
    entries = FileSystemReader(step).read_metadata().state_dict_metadata
    tensors = {name: tuple(entry.size) for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
    hidden, inner, heads, groups = 64, 96, 128, 64
    sizes = {"self_attn.q": (hidden, heads), "self_attn.k": (hidden, groups), "self_attn.v": (hidden, groups)}
    sizes |= {"self_attn.o": (heads, hidden), "mlp.gate": (hidden, inner), "mlp.up": (hidden, inner)}
    sizes["mlp.down"] = (inner, hidden)
    expected = {}
    for layer in range(TINY["num_hidden_layers"]):
        for name, (inputs, outputs) in sizes.items():
            expected[f"model.layers.{layer}.{name}_proj.lora_A.weight"] = (RANK, inputs)
            expected[f"model.layers.{layer}.{name}_proj.lora_B.weight"] = (outputs, RANK)
    model = {name: shape for name, shape in tensors.items() if not name.startswith(("optimizer", "rng", "rerun"))}
    assert model == expected
    moments = {name for name in tensors if name.startswith("optimizer")}
    assert moments == {f"optimizer.state.{part}.{name}" for part in ("exp_avg", "exp_avg_sq") for name in expected}
    size = sum(int(np.prod(shape)) for shape in tensors.values())
    assert size < 4 * sum(int(np.prod(shape)) for shape in expected.values())
