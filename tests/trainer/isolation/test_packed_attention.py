"""Packed conversations are strangers: at fixed weights a pack is its conversations one by one, and poison stays put."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_runs import TOY_MODEL, random_pairs, run_script, write_shards

pytestmark = pytest.mark.megatron


@pytest.mark.parametrize("positions", ["rope", "learned_absolute"])
def test_a_pack_is_its_conversations_one_by_one(tmp_path: Path, positions: str) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(30, seed=7, answer=(1, 25))}, shards=2)
    flags = [flag for flag in TOY_MODEL if "position" not in flag]
    flags += [f"--position-embedding-type={positions}", "--num-query-groups=2", "--group-query-attention"]
    flags += ["--seq-length=96", "--train-iters=2", "--lr=1e-3", "--init-method-std=0.2"]
    found = json.loads(run_script("packed_attention.py", shards, *flags).stdout.splitlines()[-1])
    assert found["conversations"] == 30
    assert found["packs"] < 10
    assert found["parameters"] > 10
    for way in ("micro-batch 1", "micro-batch 4"):
        assert found[way]["loss"] < 1e-6, way
        assert found[way]["gradient"] < 2e-5, way
    # What the test would miss if conversations hardly mattered to each other
    assert found["without isolation"]["gradient"] > 0.05
    assert found["poison"][0] is False
    assert found["poison"][1] is True
    assert not any(found["poison"][2:])
    assert len(found["poison"]) > 4
    assert all(found["poison without isolation"][1:])
