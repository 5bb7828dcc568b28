"""Balancing: the same global batches, in an order in which no rank waits for long."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_shards.trainer.data.balance import BalancedSamples, CostModel, deal, waiting

pytestmark = pytest.mark.unit


class Costed:
    """Items that are their own number, with given costs."""

    def __init__(self, costs: list[int]) -> None:
        self.costs = costs

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, item: int) -> int:
        return item

    def cost(self, item: int) -> int:
        return self.costs[item]


def rank_sums(costs: list[int], order: list[int], ranks: int, rows: int) -> list[int]:
    """What each rank computes, as Megatron's sampler hands items out."""
    sums = [0] * ranks
    for place, item in enumerate(order):
        sums[place % (ranks * rows) // rows] += costs[item]
    return sums


def test_the_example() -> None:
    order = deal([9, 1, 8, 2], ranks=2, rows=1).tolist()
    assert order == [0, 2, 1, 3]
    assert rank_sums([9, 1, 8, 2], order, 2, 1) == [10, 10]
    assert waiting(np.array([9, 1, 8, 2]), ranks=2, rows=1) == pytest.approx(1 - 10 / 17)


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.integers(1, 4),
    rows=st.integers(1, 2),
    each=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_dealing_is_an_order_that_is_no_slower(ranks: int, rows: int, each: int, seed: int) -> None:
    costs = np.random.default_rng(seed).integers(1, 1000, ranks * rows * each).tolist()
    order = deal(costs, ranks=ranks, rows=rows).tolist()
    assert sorted(order) == list(range(len(costs)))
    sums = rank_sums(costs, order, ranks, rows)
    assert max(sums) <= max(rank_sums(costs, sorted(order, key=lambda item: -costs[item]), ranks, rows))
    of_first_rank = [costs[order[place]] for place in range(len(order)) if place % (ranks * rows) // rows == 0]
    assert of_first_rank == sorted(of_first_rank, reverse=True)


@settings(max_examples=30, deadline=None)
@given(costs=st.lists(st.integers(1, 100), min_size=6, max_size=6))
def test_it_is_close_to_the_best_of_all_orders(costs: list[int]) -> None:
    best = min(max(sum(half), sum(costs) - sum(half)) for half in itertools.combinations(costs, 3))
    found = max(rank_sums(costs, deal(costs, ranks=2, rows=1).tolist(), 2, 1))
    assert found <= best * 1.1 + 1


def test_one_rank_takes_its_samples_in_order_of_falling_cost() -> None:
    assert deal([2, 9, 1, 8], ranks=1, rows=1).tolist() == [1, 3, 0, 2]


def test_each_global_batch_keeps_its_items_on_every_layout() -> None:
    costs = np.random.default_rng(1).integers(1, 1000, 50).tolist()
    for ranks, rows in ((2, 1), (4, 2), (8, 1), (1, 8)):
        samples = BalancedSamples(Costed(costs), batch=8, ranks=ranks, rows=rows)
        items = [samples[place] for place in range(50)]
        for first in range(0, 48, 8):
            assert sorted(items[first : first + 8]) == list(range(first, first + 8))
        assert items[48:] == [48, 49], "an incomplete batch keeps its places"
        assert [samples[place] for place in reversed(range(50))] == items[::-1], "whatever was asked before"


def test_a_run_that_goes_on_with_another_batch_size_shows_nothing_twice() -> None:
    """12 items of batches of 4, then batches of 8: places 12 to 19 are one global batch."""
    costs = np.random.default_rng(2).integers(1, 1000, 40).tolist()
    before = BalancedSamples(Costed(costs), batch=4, ranks=2, rows=1)
    after = BalancedSamples(Costed(costs), batch=8, ranks=2, rows=1, consumed=12)
    shown = [before[place] for place in range(12)] + [after[place] for place in range(12, 36)]
    assert sorted(shown) == list(range(36))
    again = BalancedSamples(Costed(costs), batch=8, ranks=2, rows=1, consumed=28)
    assert [again[place] for place in range(28, 36)] == [after[place] for place in range(28, 36)]


def test_what_a_sample_costs() -> None:
    """Conversations of 3 and 1 positions in a sample of 4: 4 x linear, and (9 + 1) / 2 pairs."""
    found: Any = CostModel(linear=100, quadratic=6).of(4, np.array([10, 16]))
    assert found.tolist() == [430, 448]
