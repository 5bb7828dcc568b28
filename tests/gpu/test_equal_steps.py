"""One step over all conversations is the same step packed or one by one, by every kernel, on every layout.

Compared are the loss and the norm of the gradient of the whole model. In float32 that is done by `sdpa`, which alone
takes it; in BF16 by whatever kernel the machine has.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_calls import steps, train

from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.pack_plan import make_plan
from sft_shards.trainer.isolation.kernels import KINDS, missing
from sft_shards.trainer.launch import gpus

FLOAT32, BF16 = 2e-5, 2e-2
"""How far results may be apart, relatively."""
TP2, PP2 = "--tensor-model-parallel-size=2", "--pipeline-model-parallel-size=2"
LAYOUTS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "one process": (1, 1, ()),
    "DP 2": (2, 1, ()),
    "TP 2 and sequence parallelism": (2, 1, (TP2, "--sequence-parallel")),
    "PP 2": (2, 1, (PP2,)),
    "CP 2": (2, 2, ()),
    "CP 4": (4, 4, ()),
    "CP 2 and TP 2": (4, 2, (TP2,)),
}
"""Processes, context-parallel ranks, flags."""
ON_CPU = ("one process", "TP 2 and sequence parallelism", "CP 2")
"""The others are run by tests/trainer/mcore/test_layouts.py and test_context_parallel.py, in less time."""
CASES = [
    *(pytest.param("cpu", "sdpa", name, marks=pytest.mark.megatron) for name in ON_CPU),
    *(pytest.param("gpu", "sdpa", name, marks=pytest.mark.gpu) for name in LAYOUTS),
    *(pytest.param("gpu", f"{kind} in BF16", "one process", marks=pytest.mark.gpu) for kind in KINDS),
    *(pytest.param("gpu", f"{kind} in BF16", "CP 2", marks=pytest.mark.gpu) for kind in KINDS),
]
FIXED = ("--lr=0", "--min-lr=0", "--train-iters=1")
Step = tuple[float, float]
"""Loss and norm of the gradient."""


def first(output: str) -> Step:
    loss, norm = steps(output)[1]
    return float(loss), float(norm)


@pytest.fixture(scope="module")
def one_by_one(shards: Path, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Step]:
    """The step with one conversation in a sample, by device."""
    found = {}
    for device in ("cpu", "gpu") if gpus.count() else ("cpu",):
        options = ("--batching", "padded", "--isolation", "sdpa", "--cache-dir", tmp_path_factory.mktemp("cache"))
        found[device] = first(train(shards, wide, device, *FIXED, "--global-batch-size=28", options=options))
    return found


@pytest.mark.parametrize(("device", "attention", "layout"), CASES)
def test_packed_is_one_by_one(
    shards: Path, wide: Path, tmp_path: Path, one_by_one: dict[str, Step], device: str, attention: str, layout: str
) -> None:
    kind, _, precision = attention.partition(" in ")
    processes, context, flags = LAYOUTS[layout]
    if device == "gpu":
        if gpus.count() < processes:
            pytest.skip(f"{layout} takes {processes} GPUs; torch finds {gpus.count()}")
        if why := missing(kind):
            pytest.skip(why)
    multiple = 2 * context if context > 1 else 1
    plan = make_plan(
        ShardDirectory(shards).split("train"),
        seq_length=64,
        overlong="truncate",
        batching="packed",
        every_token=False,
        seed=1234,
        cache=Cache(tmp_path / "plan"),
        multiple=multiple,
    )
    words = [*FIXED, *flags, f"--context-parallel-size={context}", f"--global-batch-size={len(plan)}"]
    options = ("--isolation", kind, "--cache-dir", tmp_path / "cache")
    output = train(shards, wide, device, *words, *(["--bf16"] if precision else []), nproc=processes, options=options)
    assert f"train: {len(plan)} samples" in output
    assert f"isolation: {kind} (as asked" in output
    tolerance = BF16 if precision else FLOAT32
    for found, expected in zip(first(output), one_by_one[device], strict=True):
        assert found == pytest.approx(expected, rel=tolerance)
