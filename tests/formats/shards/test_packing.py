"""The pack index, against brute force and against the textbook algorithm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.shards.packing import Packs, pack, random_words, shuffled

pytestmark = pytest.mark.unit

LENGTHS = st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=120))
)


def loads(lengths: np.ndarray, packs: Packs) -> list[int]:
    return [int(lengths[packs.items[a:b]].sum()) for a, b in zip(packs.bounds, packs.bounds[1:], strict=False)]


def best_fit_decreasing(lengths: list[int], capacity: int) -> list[int]:
    """Free space of each pack, one item after the other."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [n for n, space in enumerate(free) if space >= length]
        if fitting:
            free[min(fitting, key=lambda n: free[n])] -= length
        else:
            free.append(capacity - length)
    return free


@given(LENGTHS, st.integers(0, 5))
def test_everything_once_and_nothing_over_capacity(made: tuple[int, list[int]], seed: int) -> None:
    capacity, lengths = made[0], np.array(made[1], dtype=np.int32)
    packs = pack(lengths, capacity, seed)
    assert sorted(packs.items.tolist()) == list(range(len(lengths)))
    assert packs.items.dtype == packs.bounds.dtype == np.uint32
    found = loads(lengths, packs)
    assert all(0 < load <= capacity for load in found)


@given(LENGTHS)
def test_the_packs_are_those_of_best_fit_decreasing(made: tuple[int, list[int]]) -> None:
    capacity, lengths = made
    found = loads(np.array(lengths, dtype=np.int32), pack(np.array(lengths, dtype=np.int32), capacity, 0))
    assert sorted(found) == sorted(capacity - free for free in best_fit_decreasing(lengths, capacity))


def test_typical_lengths_fill_their_packs() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 1, 50_000).astype(np.int32), 1, 8192)
    packs = pack(lengths, 8192, 0)
    assert lengths.sum() / (8192 * (len(packs.bounds) - 1)) > 0.999


def test_the_place_in_the_epoch_depends_on_neither_length_nor_place_in_the_files() -> None:
    lengths = np.sort(np.clip(np.random.default_rng(0).lognormal(5, 1, 40_000).astype(np.int32), 1, 2048))
    packs = pack(lengths, 2048, 0)
    sizes = np.diff(packs.bounds.astype(np.int64))
    place = np.repeat(np.arange(len(sizes)), sizes)
    means = [float(lengths[packs.items[place % 10 == 0]].mean())]
    for part in range(4):
        here = packs.items[place * 4 // len(sizes) == part]
        means.append(float(lengths[here].mean()))
        assert abs(float(here.mean()) / len(lengths) - 0.5) < 0.05, "rows of everywhere"
    assert max(means) / min(means) < 1.1
    # Conversations of one length are drawn: their rows do not come in the order of the files.
    same = packs.items[lengths[packs.items] == 100].astype(float)
    assert len(same) > 50
    assert abs(np.corrcoef(same, np.arange(len(same)))[0, 1]) < 0.5


def test_seeds_differ_and_a_seed_is_a_seed_for_ever() -> None:
    lengths = np.array([3, 1, 4, 1, 5, 2, 6, 5, 3, 5], dtype=np.int32)
    packs = pack(lengths, 8, 1234, "x")
    assert (packs.items.tolist(), packs.bounds.tolist()) == FIXED
    assert pack(lengths, 8, 1235, "x").items.tolist() != packs.items.tolist()
    assert shuffled(8, "a", 1).tolist() == SHUFFLED
    assert random_words(2, "a", 1).tolist() != random_words(2, "a", 2).tolist()


def test_nothing_is_no_pack() -> None:
    assert pack(np.zeros(0, dtype=np.int32), 8, 0).bounds.tolist() == [0]


@pytest.mark.parametrize("bad", [[0], [9]])
def test_a_length_that_cannot_be_is_a_bug(bad: list[int]) -> None:
    with pytest.raises(AssertionError):
        pack(np.array(bad, dtype=np.int32), 8, 0)


# A run is resumed by counting: another order under the same seed would show some conversations twice.
FIXED = ([9, 3, 1, 4, 8, 7, 0, 2, 6, 5], [0, 3, 5, 7, 8, 10])
SHUFFLED = [3, 5, 6, 1, 0, 2, 4, 7]
