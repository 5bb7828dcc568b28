"""The cached index of packs."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_runs import turn, write_shards

from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data import pack_plan
from sft_shards.trainer.data.cache import Cache

pytestmark = pytest.mark.unit


def test_masks_are_read_once_whatever_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, {"train": [turn([11], [21, 22]), turn([11], [21] * 20)]}, shards=2)
    split = ShardDirectory(tmp_path).split("train")

    def rows(seq_length: int) -> list[int]:
        made = pack_plan.make_plan(
            split,
            seq_length=seq_length,
            overlong="truncate",
            batching="packed",
            every_token=False,
            seed=1,
            cache=Cache(tmp_path / "cache"),
        )
        return sorted(made.packs.items.tolist())

    assert rows(30) == [0, 1]
    monkeypatch.setattr(pack_plan, "all_targets", lambda split: pytest.fail("read again"))
    assert rows(40) == [0, 1]
