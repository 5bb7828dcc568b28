"""Stages: the two that are built in, those of other packages, and Megatron-LM's own SFTDataset as one of these."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from toy_runs import PLUGIN, TOY_MODEL, Run, losses, random_pairs, run_forked, write_shards

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer import stage_registry


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))


@pytest.mark.unit
@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
def test_entry_points_are_found_and_checked(plugin: None) -> None:
    assert {"sft", "pretrain", "holes", "theirs"} <= set(stage_registry.known())
    assert stage_registry.load("holes").__name__ == "Holes"
    assert stage_registry.load("pretrain").every_token is True
    with pytest.raises(DataError, match="toy_stages:Missing cannot be loaded"):
        stage_registry.load("broken")
    with pytest.raises(DataError, match="not a subclass"):
        stage_registry.load("function")
    with pytest.raises(UsageError, match="did you mean 'holes'"):
        stage_registry.check("hole")


@pytest.mark.megatron
def test_stages_train(plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(12, seed=1, answer=(1, 8))
    shards = [write_shards(tmp_path / "shards", {"train": pairs})]
    flags = [*TOY_MODEL, "--seq-length=32", "--train-iters=5", "--lr=1e-2", "--global-batch-size=4"]

    def run(stage: str, nproc: int = 1) -> Run:
        return Run(shards=shards, flags=flags, nproc=nproc, options={"stage": stage, "batching": "padded"})

    monkeypatch.setenv("TOY_PAD", "7")
    outputs = run_forked(tmp_path, [run("sft"), run("theirs"), run("pretrain"), run("holes", 2)])
    monkeypatch.setenv("TOY_PAD", "1")
    (stop_is_padding,) = run_forked(tmp_path, [run("theirs")])
    ours, theirs, every, holes = map(losses, outputs)

    # Megatron-LM's SFTDataset: the same loss, unless the padding is the stop token, which it then never trains.
    assert len(ours) == 5
    assert theirs == ours
    assert all(abs(loss - ours[step]) > 1e-3 for step, loss in losses(stop_is_padding).items() if step > 1)

    trained, positions = sum(sum(mask) for _, mask in pairs), sum(len(ids) - 1 for ids, _ in pairs)
    assert f"{positions:,} positions, {trained:,} of them trained" in outputs[0]
    assert f"{positions:,} positions, {positions:,} of them trained" in outputs[2]
    assert every[5] != ours[5]

    # Nothing trained on any rank: no loss is shown (it is 0/0), nothing is learnt but the moments, and training goes on.
    assert set(holes) == {1, 3, 4, 5}
    assert holes[1] == pytest.approx(ours[1], rel=1e-6)
    assert sys.float_info.max > holes[5] > 0
