"""The peer of a step trains on the tokens that ours trains on: Megatron-LM's own SFT data set makes its samples."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_runs import random_pairs

from sft_shards.trainer.data.shards import Pair, Reader

pytestmark = pytest.mark.megatron

SIZE = 96
PAIRS: list[Pair] = [(np.array(ids, np.uint16), np.array(mask, np.uint8)) for ids, mask in random_pairs(5, seed=3)]


def theirs(lines: list[list[Pair]]) -> list[dict[str, Any]]:
    module = importlib.import_module("benchmarks.megatron_sft")
    return module.samples(lines, seq_length=SIZE, vocab_size=130)


def targets(sample: Any) -> list[tuple[int, int, int]]:
    """Of each trained position: the id that is read, its position in the conversation, and the label."""
    columns = (np.asarray(sample[name]) for name in ("tokens", "position_ids", "labels", "loss_mask"))
    return [
        (token, at, label)
        for token, at, label, trained in zip(*map(np.ndarray.tolist, columns), strict=True)
        if trained
    ]


def ours(conversations: list[Pair]) -> Any:
    plan: Any = SimpleNamespace(multiple=1)
    return Reader(plan, seq_length=SIZE, pad_id=0, every_token=False).sample(conversations)


def test_the_same_targets_padded_and_packed() -> None:
    for pair, sample in zip(PAIRS, theirs([[pair] for pair in PAIRS]), strict=True):
        assert targets(sample) == targets(ours([pair]))
        assert sample["cu_seqlens"].unique_consecutive().tolist() == [0, SIZE], "padding is part of the conversation"
    packs = [PAIRS[:2], PAIRS[2:4]]
    for pack, sample in zip(packs, theirs(packs), strict=True):
        assert sum(len(ids) for ids, _ in pack) <= SIZE
        assert targets(sample) == targets(ours(pack))
        assert sample["cu_seqlens"].unique_consecutive().tolist() == [0, len(pack[0][0]), SIZE]


def test_what_does_not_fit_is_cut() -> None:
    """It counts a position for each token, ours one fewer for each conversation."""
    (sample,) = theirs([PAIRS])
    assert sum(len(ids) for ids, _ in PAIRS) > SIZE
    kept, whole = targets(sample), [each for pair in PAIRS for each in targets(ours([pair]))]
    assert 0 < len(kept) < len(whole)
    assert kept == whole[: len(kept)]
