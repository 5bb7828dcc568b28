"""The loss sees trained positions and nothing else, by the bit, through data set, forward step and model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_runs import TOY_MODEL, join, run_script, turn, write_shards

pytestmark = pytest.mark.megatron

SEQ = 20
PAIRS = [
    turn([11, 12, 13], [21, 22, 23, 24]),
    join(turn([31], [41, 42]), ([4], [0]), turn([33, 34], [43, 44, 45])),
    turn(list(range(50, 58)), list(range(60, 80))),  # 31 tokens: cut at 21
]


def test_only_trained_positions_count(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": PAIRS})
    flags = [*TOY_MODEL, f"--seq-length={SEQ}", "--train-iters=2", "--lr=1e-3", "--micro-batch-size=3"]
    found = json.loads(run_script("fixed_weights.py", shards, *flags).stdout.splitlines()[-1])
    assert found["again"] == {"loss": False, "gradient": False}, "the same labels twice give the same bits"
    assert found["loss"] > 0
    assert found["parameters"] > 10
    assert sorted(found["conversations"]) == [0, 1, 2]

    # Position p predicts token p + 1: from the stored mask, with no help from the trainer.
    trained = []
    for index in found["conversations"]:
        mask = PAIRS[index][1][1 : SEQ + 1]
        trained.append([bool(carries) for carries in mask] + [False] * (SEQ - len(mask)))

    assert found["on_logits"] == [True] * sum(map(sum, trained)), "no other position has logits"
    assert found["everywhere"] == {"loss": False, "gradient": False}
    assert len(found["positions"]) == 3 * SEQ
    for position in found["positions"]:
        carries = trained[position["row"]][position["place"]]
        assert (position["loss"], position["gradient"]) == (carries, carries), position
