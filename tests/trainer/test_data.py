"""Samples: aligned, padded, cut as said, and pure functions of their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import PAD, STOP, Pair, random_pairs, turn, write_shards

from formats.shards import ShardDirectory
from trainer.data import EvalSamples, Selection, TrainSamples, permutation, sample, select


def chosen(folder: Path, pairs: list[Pair], *, seq_length: int = 64, overlong: str = "truncate") -> Selection:
    write_shards(folder, {"train": pairs}, shards=3)
    return select([ShardDirectory(folder).split("train")], seq_length=seq_length, overlong=overlong)


def test_labels_and_mask_shift_together() -> None:
    ids, mask = turn([11, 12], [21, 22])  # user 11 12 assistant 21 22 stop
    made = sample(np.array(ids), np.array(mask, dtype=np.uint8), seq_length=8, pad_id=PAD)
    assert made["tokens"].tolist() == [2, 11, 12, 3, 21, 22, PAD, PAD]
    assert made["labels"].tolist() == [11, 12, 3, 21, 22, STOP, PAD, PAD]
    assert made["loss_mask"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert made["tokens"].dtype == made["labels"].dtype == np.int64
    assert made["loss_mask"].dtype == np.float32


def test_one_token_more_than_the_sequence_fits() -> None:
    ids, mask = turn([11, 12], [21, 22])
    made = sample(np.array(ids), np.array(mask, dtype=np.uint8), seq_length=len(ids) - 1, pad_id=PAD)
    assert made["labels"][-1] == STOP
    assert made["loss_mask"][-1] == 1


def test_selection_counts_what_it_cuts_and_leaves_out(tmp_path: Path) -> None:
    pairs = [
        turn([11], [21, 22]),  # 6 tokens
        turn([11], [21] * 20),  # 24 tokens: cut at 9
        turn([11] * 20, [21]),  # 24 tokens: nothing trained within 9
        ([5, 6, 7], [1, 0, 0]),  # token 0 is nobody's target
        ([5], [1]),  # no position at all
        ([5, 6], [0, 1]),
        turn([11], [21] * 5),  # 9 tokens: exactly fits
    ]
    cut = chosen(tmp_path / "cut", pairs, seq_length=8)
    assert cut.rows.tolist() == [0, 1, 5, 6]
    assert (cut.stored, cut.cut, cut.overlong, cut.untrained) == (7, 1, 0, 3)
    assert cut.tokens == 6 + 9 + 2 + 9
    assert cut.trained_tokens == 3 + 6 + 1 + 6
    dropped = chosen(tmp_path / "drop", pairs, seq_length=8, overlong="drop")
    assert dropped.rows.tolist() == [0, 5, 6]
    assert (dropped.cut, dropped.overlong, dropped.untrained) == (0, 2, 2)


@settings(max_examples=60, deadline=None)
@given(
    masks=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=12),
    seq_length=st.integers(1, 14),
    overlong=st.sampled_from(["truncate", "drop"]),
)
def test_selection_agrees_with_counting(
    tmp_path_factory: pytest.TempPathFactory, masks: list[list[int]], seq_length: int, overlong: str
) -> None:
    pairs: list[Pair] = [([7] * len(mask), mask) for mask in masks]
    made = chosen(tmp_path_factory.mktemp("made"), pairs, seq_length=seq_length, overlong=overlong)
    expected = [
        row
        for row, mask in enumerate(masks)
        if sum(mask[1 : seq_length + 1]) and (overlong == "truncate" or len(mask) <= seq_length + 1)
    ]
    assert made.rows.tolist() == expected
    assert made.trained_tokens == sum(sum(masks[row][1 : seq_length + 1]) for row in expected)
    assert len(made) + made.overlong + made.untrained == made.stored == len(masks)


def train(selection: Selection, *, seed: int = 5, count: int = 1000) -> TrainSamples:
    return TrainSamples(selection, seq_length=64, pad_id=PAD, seed=seed, count=count)


def test_an_item_depends_on_its_number_alone(tmp_path: Path) -> None:
    selection = chosen(tmp_path, random_pairs(23, seed=1))
    forwards = train(selection)
    seen = [forwards[item] for item in range(100)]
    backwards = train(selection, count=500)
    for item in reversed(range(100)):
        for name, value in backwards[item].items():
            np.testing.assert_array_equal(value, seen[item][name])


def test_every_epoch_shows_everything_once_in_another_order(tmp_path: Path) -> None:
    samples = train(chosen(tmp_path, random_pairs(23, seed=1)))
    epochs = [[samples.index(epoch * 23 + place) for place in range(23)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = train(samples.selection, seed=6)
    assert [other.index(place) for place in range(23)] != epochs[0]


def test_the_order_is_fixed_for_ever() -> None:
    # A run is resumed by counting: another order under the same seed would show some conversations twice.
    assert permutation(10, seed=1234, epoch=0).tolist() == [8, 9, 7, 3, 0, 1, 4, 2, 5, 6]


def test_numbers_outside_are_refused(tmp_path: Path) -> None:
    samples = train(chosen(tmp_path, random_pairs(3, seed=1)), count=10)
    assert len(samples) == 10
    for item in (-1, 10):
        with pytest.raises(IndexError):
            samples[item]


def test_an_evaluation_sees_each_conversation_once(tmp_path: Path) -> None:
    pairs = random_pairs(7, seed=2)
    selection = chosen(tmp_path, pairs)
    samples = EvalSamples(selection, seq_length=64, pad_id=PAD, seed=5, period=8, count=80)
    for start in (0, 8, 72):
        made = [samples[start + place] for place in range(8)]
        assert sum(float(each["loss_mask"].sum()) for each in made) == sum(sum(mask) for _, mask in pairs)
        assert sum(not each["loss_mask"].any() for each in made) == 1
        assert len({each["tokens"].tobytes() for each in made}) == 8


def test_several_directories_are_one_after_the_other(tmp_path: Path) -> None:
    first, second = random_pairs(5, seed=1), random_pairs(4, seed=2)
    write_shards(tmp_path / "a", {"train": first}, shards=2)
    write_shards(tmp_path / "b", {"train": second})
    splits = [ShardDirectory(tmp_path / name).split("train") for name in "ab"]
    both = select(splits, seq_length=64, overlong="truncate")
    assert [both.read(index)[0].tolist() for index in range(9)] == [list(ids) for ids, _ in first + second]
