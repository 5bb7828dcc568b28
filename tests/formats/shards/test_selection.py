"""What is trained on: counted from the masks, within the sequence, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import Pair, turn, write_shards

from sft_shards.formats.shards import ShardDirectory, selection
from sft_shards.formats.shards.selection import Selection, select

pytestmark = pytest.mark.unit


def chosen(folder: Path, pairs: list[Pair], *, seq_length: int, overlong: str, every_token: bool = False) -> Selection:
    if not (folder / "manifest.json").exists():
        write_shards(folder, {"train": pairs}, shards=3)
    return select(
        ShardDirectory(folder).split("train"),
        seq_length=seq_length,
        overlong=overlong,
        every_token=every_token,
    )


PAIRS: list[Pair] = [
    turn([11], [21, 22]),  # 6 tokens
    turn([11], [21] * 20),  # 24 tokens: cut at 9
    turn([11] * 20, [21]),  # 24 tokens: nothing trained within 9
    ([5, 6, 7], [1, 0, 0]),  # token 0 is nobody's target
    ([5], [1]),  # no position at all
    ([5, 6], [0, 1]),
    turn([11], [21] * 5),  # 9 tokens: exactly fits
]


def test_what_is_cut_and_left_out_is_counted(tmp_path: Path) -> None:
    cut = chosen(tmp_path, PAIRS, seq_length=8, overlong="truncate")
    assert cut.rows.tolist() == [0, 1, 5, 6]
    assert cut.positions.tolist() == [5, 8, 1, 8]
    assert (cut.cut, cut.overlong, cut.untrained, cut.trained_tokens) == (1, 0, 3, 3 + 6 + 1 + 6)
    dropped = chosen(tmp_path, PAIRS, seq_length=8, overlong="drop")
    assert dropped.rows.tolist() == [0, 5, 6]
    assert (dropped.cut, dropped.overlong, dropped.untrained) == (0, 2, 2)


def test_every_token(tmp_path: Path) -> None:
    found = chosen(tmp_path, PAIRS, seq_length=8, overlong="truncate", every_token=True)
    assert found.rows.tolist() == [0, 1, 2, 3, 5, 6]
    assert found.trained_tokens == found.positions.sum() == 5 + 8 + 8 + 2 + 1 + 8


@settings(max_examples=60)
@given(
    masks=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=12),
    seq_length=st.integers(1, 14),
    overlong=st.sampled_from(["truncate", "drop"]),
    block=st.integers(1, 30),
)
def test_selection_agrees_with_counting(
    tmp_path_factory: pytest.TempPathFactory, masks: list[list[int]], seq_length: int, overlong: str, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BLOCK", block)
        pairs: list[Pair] = [([7] * len(mask), mask) for mask in masks]
        made = chosen(tmp_path_factory.mktemp("made"), pairs, seq_length=seq_length, overlong=overlong)
    expected = [
        row
        for row, mask in enumerate(masks)
        if sum(mask[1 : seq_length + 1]) and (overlong == "truncate" or len(mask) <= seq_length + 1)
    ]
    assert made.rows.tolist() == expected
    assert made.positions.tolist() == [min(len(masks[row]) - 1, seq_length) for row in expected]
    assert made.trained_tokens == sum(sum(masks[row][1 : seq_length + 1]) for row in expected)
    assert len(made.rows) + made.overlong + made.untrained == len(masks)


def test_packs_hold_every_selected_row_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    found = chosen(tmp_path, PAIRS, seq_length=8, overlong="truncate")
    split = ShardDirectory(tmp_path).split("train")
    packs = found.packed(split, seq_length=8, seed=1)
    assert sorted(packs.items.tolist()) == found.rows.tolist()
    positions = dict(zip(found.rows.tolist(), found.positions.tolist(), strict=True))
    filled = [sum(positions[row] for row in part.tolist()) for part in np.split(packs.items, packs.bounds[1:-1])]
    assert sorted(filled) == [6, 8, 8]
    again = found.packed(split, seq_length=8, seed=1)
    assert packs.items.tolist() == again.items.tolist()
    assert packs.bounds.tolist() == again.bounds.tolist()
