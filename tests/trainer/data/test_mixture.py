"""Mixtures: weights are epochs, every draw follows from its number, and a directory that is added disturbs nobody."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import random_pairs, write_shards

from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.packing import Packs
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.mixture import Mixture, Source
from sft_shards.trainer.data.pack_plan import Counts, Plan, make_plan

pytestmark = pytest.mark.unit

NO_COUNTS = Counts(stored=0, conversations=0, positions=0, gaps=0, trained_tokens=0, cut=0, overlong=0, untrained=0)


def source(name: str, packs: int, weight: str = "1") -> Source:
    split: Any = None
    index = Packs(items=np.arange(packs, dtype=np.uint32), bounds=np.arange(packs + 1, dtype=np.uint32))
    plan = Plan(split=split, packs=index, counts=NO_COUNTS, identity=name)
    return Source(name=name, weight=Fraction(weight), plan=plan)


def draws(mixture: Mixture, first: int, last: int) -> list[tuple[str, int]]:
    located = [mixture.locate(item) for item in range(first, last)]
    return [(mixture.sources[number].name, pack) for number, pack in located]


def test_one_directory_once_an_epoch_in_another_order() -> None:
    mixture = Mixture([source("a", 23)], seed=5)
    assert mixture.samples(1) == 23
    epochs = [[pack for _, pack in draws(mixture, epoch * 23, epoch * 23 + 23)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert draws(Mixture([source("a", 23)], seed=6), 0, 23) != draws(mixture, 0, 23)


def test_weights_are_epochs() -> None:
    mixture = Mixture([source("a", 10), source("b", 7, "0.3"), source("c", 4, "2.5")], seed=1)
    seen = Counter(draws(mixture, 0, mixture.samples(20)))
    assert {seen["a", pack] for pack in range(10)} == {20}
    assert {seen["b", pack] for pack in range(7)} == {6}
    assert {seen["c", pack] for pack in range(4)} == {50}
    for epoch in range(20):  # never off by a whole pack
        so_far = Counter(name for name, _ in draws(mixture, 0, mixture.samples(epoch + 1)))
        assert so_far["b"] == (epoch + 1) * 21 // 10


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["1", "0.1", "1/3", "2", "0.7"])), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_an_item_depends_on_its_number_alone(made: list[tuple[int, str]], seed: int) -> None:
    sources = [source(f"s{number}", *each) for number, each in enumerate(made)]
    forwards = Mixture(sources, seed=seed)
    count = forwards.samples(5) + 3
    backwards = Mixture(sources, seed=seed)
    backward = [backwards.locate(item) for item in reversed(range(count))]
    assert backward[::-1] == [forwards.locate(item) for item in range(count)]


def test_a_directory_that_is_added_leaves_the_order_of_the_others() -> None:
    two = Mixture([source("a", 50), source("b", 30, "0.5")], seed=1)
    three = Mixture([source("c", 40, "3"), source("a", 50), source("b", 30, "0.5")], seed=1)
    kept = [draw for draw in draws(three, 0, three.samples(2)) if draw[0] != "c"]
    assert kept == draws(two, 0, two.samples(2))
    # and it stands everywhere among them
    places = [place for place, draw in enumerate(draws(three, 0, three.samples(1))) if draw[0] == "c"]
    assert np.mean(places) == pytest.approx(three.samples(1) / 2, rel=0.15)


def test_a_directory_named_twice_draws_twice() -> None:
    mixture = Mixture([source("a", 40), source("a", 40)], seed=1)
    one, two = ([pack for number, pack in map(mixture.locate, range(80)) if number == which] for which in (0, 1))
    assert sorted(one) == sorted(two) == list(range(40))
    assert one != two


def test_the_order_is_fixed_for_ever() -> None:
    mixture = Mixture([source("a", 5), source("b", 4, "0.5")], seed=1234)
    assert [f"{name}{pack}" for name, pack in draws(mixture, 0, 7)] == ORDER


def test_plans_are_cached_by_content(tmp_path: Path) -> None:
    """Every conversation once in a plan; the same content elsewhere is the same plan, other content another."""
    pairs = random_pairs(40, seed=1)
    for name, rows in (("a", pairs), ("b", pairs), ("c", pairs[1:])):
        write_shards(tmp_path / name, {"train": rows}, shards=3)
    cache = Cache(tmp_path / "cache")

    def plan(name: str, **changed: Any) -> Plan:
        options = {"seq_length": 64, "overlong": "truncate", "batching": "packed", "every_token": False, "seed": 1}
        return make_plan(ShardDirectory(tmp_path / name).split("train"), cache=cache, **{**options, **changed})

    first = plan("a")
    assert sorted(first.packs.items.tolist()) == list(range(40))
    assert len(first) < 40
    entries = len(list(cache.root.iterdir()))
    np.testing.assert_array_equal(plan("b").packs.items, first.packs.items)
    assert len(list(cache.root.iterdir())) == entries
    assert plan("c").identity != first.identity
    assert plan("a", seed=2).packs.items.tolist() != first.packs.items.tolist()
    assert len(plan("a", batching="padded")) == 40
    assert len(plan("a", seq_length=30)) > len(first)
    assert plan("a", seq_length=30, overlong="drop").counts.overlong > 0
    wide = plan("a", multiple=16)
    assert (wide.multiple, first.multiple, first.counts.gaps) == (16, 1, 0)
    assert wide.counts.gaps > 0
    assert len(wide) > len(first)
    assert plan("a", every_token=True).counts.trained_tokens == first.counts.positions


ORDER = ["b1", "a3", "a2", "b0", "a4", "a0", "a1"]
