"""One objective: losses and gradients do not depend on packing, chunks of logits, micro-batch, DP, TP, PP or SP.

Every step sees all conversations once, however many samples they are. Plain gradient descent from the same weights
leaves the same weights after some steps if and only if every gradient was the same; checkpoints of `torch_dist` hold
whole tensors whatever the layout, so they are compared tensor by tensor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from saved_weights import saved_weights
from toy_runs import TOY_MODEL, Run, losses, random_pairs, run_forked, write_shards

pytestmark = pytest.mark.megatron

STEPS = 5
CONVERSATIONS, PACKS = 40, 16
TP2 = ("--tensor-model-parallel-size=2",)
PP2 = ("--pipeline-model-parallel-size=2",)
LAYOUTS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "packed, micro-batch 1": ("packed", 1, ("--micro-batch-size=1",)),
    "packed, micro-batch 4": ("packed", 1, ("--micro-batch-size=4",)),
    "packed, DP 2": ("packed", 2, ("--micro-batch-size=4",)),
    "packed, TP 2": ("packed", 2, TP2),
    "packed, TP 2, sequence parallel, attention recomputed": (
        "packed",
        2,
        (*TP2, "--sequence-parallel", "--recompute-granularity=selective"),
    ),
    "packed, PP 2": ("packed", 2, PP2),
    "packed, PP 2, virtual stages": ("packed", 2, (*PP2, "--num-layers-per-virtual-pipeline-stage=1")),
    "padded, micro-batch 1": ("padded", 1, ("--micro-batch-size=1",)),
    "padded, micro-batch 4, DP 2": ("padded", 2, ("--micro-batch-size=4",)),
    "padded, TP 2": ("padded", 2, TP2),
}


def test_losses_and_gradients_are_the_same_on_every_layout(tmp_path: Path) -> None:
    pairs = random_pairs(24, seed=3, answer=(1, 8)) + random_pairs(16, seed=4, answer=(30, 40))
    shards = [write_shards(tmp_path / "shards", {"train": pairs, "valid": random_pairs(5, seed=5)}, shards=2)]
    model = [*TOY_MODEL, "--num-layers=4", "--seq-length=64", "--optimizer=sgd", "--sgd-momentum=0", "--clip-grad=0"]
    model += ["--weight-decay=0", "--lr-decay-style=constant", "--ckpt-format=torch_dist", "--save-interval=100"]
    once = [*model, "--train-iters=1", "--lr=0", "--min-lr=0"]
    start = Run(shards=shards, flags=[*once, f"--save={tmp_path / 'start'}"])
    spread = [*TP2, "--context-parallel-size=2", f"--save={tmp_path / 'spread'}"]

    def run(number: int, batching: str, nproc: int, flags: tuple[str, ...], *, per_token: bool = True) -> Run:
        samples = PACKS if batching == "packed" else CONVERSATIONS
        words = [*model, *flags, f"--train-iters={STEPS}", f"--global-batch-size={samples}", "--lr=1.0"]
        words += [f"--load={tmp_path / 'start'}", "--finetune", f"--save={tmp_path / str(number)}"]
        config = {} if per_token else {"config": {"calculate-per-token-loss": False}}
        chunk = {"loss_chunk": 7} if number % 2 else {}  # logits of a micro-batch in many chunks, or in one
        return Run(shards=shards, flags=words, nproc=nproc, options={"batching": batching, **chunk, **config})

    runs = [run(number, *layout) for number, layout in enumerate(LAYOUTS.values())]
    averaged = run(len(runs), "packed", 1, ("--micro-batch-size=1",), per_token=False)
    spread_start = Run(shards=shards, flags=[*once, *spread], nproc=4)
    _, _, *outputs, other = run_forked(tmp_path, [start, spread_start, *runs, averaged])

    assert f"train: {PACKS} samples" in outputs[0], "a step is an epoch"
    assert "128 rows for 120 ids" in outputs[0]
    first, begin = losses(outputs[0]), saved_weights(tmp_path / "start", 1)
    for tensor, value in saved_weights(tmp_path / "spread", 1).items():
        np.testing.assert_array_equal(value, begin[tensor], err_msg=f"random weights, TP 2 x CP 2: {tensor}")
    assert len(first) == STEPS
    assert first[STEPS] < first[1] - 0.1, "it learns"
    reference = saved_weights(tmp_path / "0", STEPS)
    assert len(reference) == 8
    assert all(np.abs(reference[name] - begin[name]).max() > 1e-4 for name in reference)
    for number, (name, output) in enumerate(zip(LAYOUTS, outputs, strict=True)):
        np.testing.assert_allclose(list(losses(output).values()), list(first.values()), rtol=2e-6, err_msg=name)
        found = saved_weights(tmp_path / str(number), STEPS)
        assert found.keys() == reference.keys(), name
        for tensor, value in found.items():
            moved = np.abs(reference[tensor] - begin[tensor]).max()
            assert np.abs(value - reference[tensor]).max() < 2e-4 * moved, f"{name}: {tensor}"
    # What the test would miss if trained lengths were alike: a mean per micro-batch is another objective.
    assert max(abs(losses(other)[step] - first[step]) for step in first) > 1e-4
