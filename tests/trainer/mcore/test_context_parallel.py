"""Context parallelism changes nothing: losses and gradients are those of one process, beside TP, PP and DP too.

As in `test_layouts`: plain gradient descent leaves the same weights if and only if every gradient was the same. A step
sees all conversations once, however many packs they fill.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from saved_weights import saved_weights
from toy_runs import TOY_MODEL, Run, losses, random_pairs, run_forked, write_shards

pytestmark = pytest.mark.megatron

STEPS = 3
CONVERSATIONS = 28
PACKS = {1: 11, 2: 12, 4: 13}
"""By context-parallel ranks: conversations take a multiple of 1, 4 or 8 positions."""
TP2, PP2 = "--tensor-model-parallel-size=2", "--pipeline-model-parallel-size=2"
RECOMPUTED = ("--recompute-granularity=full", "--recompute-method=uniform", "--recompute-num-layers=1")
Layout = tuple[str, int, int, tuple[str, ...]]
"""Batching, context-parallel ranks, processes, flags."""
ALONE: dict[str, Layout] = {
    "CP 2": ("packed", 2, 2, ("--micro-batch-size=4",)),
    "CP 4, which repeats groups of keys and values": ("packed", 4, 4, RECOMPUTED),
    "CP 2, padded": ("padded", 2, 2, ("--micro-batch-size=4",)),
}
BESIDE: dict[str, Layout] = {
    "TP 2 and sequence parallelism": ("packed", 2, 4, (TP2, "--sequence-parallel")),
    "PP 2": ("packed", 2, 4, (PP2,)),
    "DP 2": ("packed", 2, 4, ()),
}


@pytest.mark.parametrize(
    ("positions", "layouts"),
    [("rope", ALONE), ("rope", BESIDE), ("learned_absolute", {"CP 2": ALONE["CP 2"]})],
    ids=["alone", "beside", "learned"],
)
def test_losses_and_gradients_are_those_of_one_process(
    tmp_path: Path, positions: str, layouts: dict[str, Layout]
) -> None:
    pairs = random_pairs(14, seed=3, answer=(1, 8)) + random_pairs(14, seed=4, answer=(20, 30))
    shards = [write_shards(tmp_path / "shards", {"train": pairs}, shards=2)]
    model = [flag for flag in TOY_MODEL if "position" not in flag]
    model += [f"--position-embedding-type={positions}", "--num-query-groups=2", "--group-query-attention"]
    model += ["--seq-length=64", "--optimizer=sgd", "--sgd-momentum=0", "--clip-grad=0", "--weight-decay=0"]
    model += ["--init-method-std=0.2", "--lr-decay-style=constant", "--ckpt-format=torch_dist", "--save-interval=100"]
    start = Run(
        shards=shards, flags=[*model, "--train-iters=1", "--lr=0", "--min-lr=0", f"--save={tmp_path / 'start'}"]
    )
    layouts = {"one process": ("packed", 1, 1, ()), **layouts}

    def run(number: int, batching: str, context: int, nproc: int, flags: tuple[str, ...]) -> Run:
        samples = PACKS[context] if batching == "packed" else CONVERSATIONS
        words = [*model, *flags, f"--train-iters={STEPS}", f"--global-batch-size={samples}", "--lr=0.3"]
        words += [f"--load={tmp_path / 'start'}", "--finetune", f"--save={tmp_path / str(number)}"]
        words += [f"--context-parallel-size={context}"]
        return Run(shards=shards, flags=words, nproc=nproc, options={"batching": batching, "loss_chunk": 7})

    _, *outputs = run_forked(tmp_path, [start, *(run(number, *each) for number, each in enumerate(layouts.values()))])
    first, begin = losses(outputs[0]), saved_weights(tmp_path / "start", 1)
    assert first[STEPS] < first[1] - 0.1, "it learns"
    reference = saved_weights(tmp_path / "0", STEPS)
    assert all(np.abs(reference[name] - begin[name]).max() > 1e-4 for name in reference)
    for number, ((name, (batching, context, _, _)), output) in enumerate(zip(layouts.items(), outputs, strict=True)):
        samples = PACKS[context] if batching == "packed" else CONVERSATIONS
        assert f"train: {samples} samples" in output, "a step is an epoch"
        assert ("positions of padding between them" in output) is (batching == "packed" and context > 1)
        assert (f" x CP {context} x DP " in output) is (context > 1)
        np.testing.assert_allclose(list(losses(output).values()), list(first.values()), rtol=3e-6, err_msg=name)
        found = saved_weights(tmp_path / str(number), STEPS)
        assert found.keys() == reference.keys(), name
        for tensor, value in found.items():
            moved = np.abs(reference[tensor] - begin[tensor]).max()
            assert np.abs(value - reference[tensor]).max() < 2e-4 * moved, f"{name}: {tensor}"
