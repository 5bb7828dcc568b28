"""Trained until it knows a few conversations by heart, the model says the assistant's words, and stops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy_runs import STOP, TOY_MODEL, Pair, join, run_script, turn, write_shards

pytestmark = pytest.mark.megatron

AFTER = 4
"""What the template writes after a stop token: never trained, the same id everywhere."""


def conversations() -> list[Pair]:
    rng = np.random.default_rng(11)

    def words(low: int, high: int) -> list[int]:
        return rng.integers(10, 120, rng.integers(low, high)).tolist()

    after: Pair = ([AFTER], [0])
    single = [join(turn(words(2, 8), words(2, 10)), after) for _ in range(5)]
    double = [join(turn(words(2, 6), words(2, 8)), after, turn(words(2, 6), words(2, 8)), after) for _ in range(3)]
    return single + double


def test_it_answers_and_stops(tmp_path: Path) -> None:
    pairs = conversations()
    shards = write_shards(tmp_path / "shards", {"train": pairs}, shards=2)
    flags = [*TOY_MODEL, "--seq-length=48", "--train-iters=150", "--lr=1e-2", "--min-lr=1e-3", "--hidden-size=64"]
    flags += ["--micro-batch-size=8", "--global-batch-size=8", "--clip-grad=1.0", "--seed=1", "--log-interval=50"]
    found = json.loads(run_script("memorize.py", shards, *flags).stdout.splitlines()[-1])
    assert len(found) == len(pairs)
    for (ids, mask), said in zip(pairs, found, strict=True):
        start = mask.index(1)
        stop = ids.index(STOP, start)
        assert said["answer"] == ids[start : stop + 1], "the assistant's ids, then the stop token, then nothing"
        trained = [loss for loss, carries in zip(said["losses"], mask, strict=True) if carries]
        untrained = [loss for loss, carries in zip(said["losses"], mask, strict=True) if not carries][1:]
        assert max(trained) < 0.1
        assert min(untrained) > 0.5, "no header, prompt or separator was learnt; by chance one is not unlikely"
