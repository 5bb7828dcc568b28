"""Samples: aligned, packed or padded, cut as said, and pure functions of their number."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import PAD, STOP, Pair, random_pairs, turn, write_shards

from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.mixture import Mixture, Source
from sft_shards.trainer.data.pack_plan import Plan, make_plan
from sft_shards.trainer.data.samples import EvalSamples, TrainSamples
from sft_shards.trainer.data.shards import Reader

pytestmark = pytest.mark.unit


def plan(
    folder: Path,
    pairs: list[Pair],
    *,
    seq_length: int,
    batching: str = "packed",
    seed: int = 5,
    multiple: int = 1,
    every_token: bool = False,
) -> Plan:
    if not (folder / "manifest.json").exists():
        write_shards(folder, {"train": pairs}, shards=3)
    return make_plan(
        ShardDirectory(folder).split("train"),
        seq_length=seq_length,
        overlong="truncate",
        batching=batching,
        every_token=every_token,
        seed=seed,
        cache=Cache(folder / "cache"),
        multiple=multiple,
    )


def reader(made: Plan, seq_length: int, *, every_token: bool = False, source: int = 0) -> Reader:
    return Reader(made, seq_length=seq_length, pad_id=PAD, every_token=every_token, source=source)


def parts(sample: dict[str, Any]) -> list[list[tuple[int, int, int]]]:
    """(token, label, mask) of each segment, padding last."""
    starts = [*np.flatnonzero(sample["position_ids"] == 0).tolist(), len(sample["tokens"])]
    columns = list(zip(sample["tokens"].tolist(), sample["labels"].tolist(), sample["loss_mask"].tolist(), strict=True))
    return [columns[a:b] for a, b in itertools.pairwise(starts)]


def test_labels_and_mask_shift_together_and_positions_start_again(tmp_path: Path) -> None:
    first, second = turn([11, 12], [21, 22]), turn([13], [23])
    made = reader(plan(tmp_path, [first, second], seq_length=12), 12)[0]
    assert made["tokens"].tolist() == [2, 11, 12, 3, 21, 22, 2, 13, 3, 23, PAD, PAD]
    assert made["labels"].tolist() == [11, 12, 3, 21, 22, STOP, 13, 3, 23, STOP, PAD, PAD]
    assert made["loss_mask"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    assert made["position_ids"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0, 1]
    assert made["tokens"].dtype == made["labels"].dtype == made["position_ids"].dtype == np.int32
    assert made["loss_mask"].dtype == np.uint8


def test_conversations_take_multiples_of_positions(tmp_path: Path) -> None:
    first, second = turn([11, 12], [21, 22]), turn([13], [23])  # 6 and 4 positions
    pairs = [first, second, turn([14], [24, 25])]  # 5
    made = plan(tmp_path, pairs, seq_length=16, multiple=4)
    sizes = sorted((8, 4, 8)[row] for row in made.packs.items.tolist())
    assert (sizes, len(made), made.counts.positions, made.counts.gaps) == ([4, 8, 8], 2, 15, 2 + 0 + 3)
    assert sorted(made.squares(16).tolist()) in ([16, 128], [64, 80])
    samples = [reader(made, 16)[number] for number in range(2)]
    for sample in samples:
        starts = np.flatnonzero(sample["position_ids"] == 0)
        assert not (starts % 4).any()
    found = [part for sample in samples for part in parts(sample)]
    padding = (PAD, PAD, 0)
    columns = list(zip([2, 11, 12, 3, 21, 22], [11, 12, 3, 21, 22, STOP], [0, 0, 0, 1, 1, 1], strict=True))
    assert [*columns, padding, padding] in found, "a gap carries no loss and belongs to the segment before it"
    every = reader(plan(tmp_path, pairs, seq_length=16, multiple=4, every_token=True), 16, every_token=True)
    assert sum(int(every[number]["loss_mask"].sum()) for number in range(2)) == 15, "gaps carry no loss then, either"


def test_padded_samples_have_no_gaps(tmp_path: Path) -> None:
    made = plan(tmp_path, [turn([11, 12], [21, 22])], seq_length=16, batching="padded", multiple=4)
    assert (made.multiple, made.counts.gaps) == (1, 0)


def test_one_token_more_than_the_sequence_fits(tmp_path: Path) -> None:
    ids, mask = turn([11, 12], [21, 22])
    made = reader(plan(tmp_path, [(ids, mask)], seq_length=len(ids) - 1), len(ids) - 1)[0]
    assert made["labels"][-1] == STOP
    assert made["loss_mask"][-1] == 1
    cut = reader(plan(tmp_path, [(ids, mask)], seq_length=5), 5)[0]
    assert cut["labels"].tolist() == ids[1:6]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(2, 99), min_size=2, max_size=20), min_size=1, max_size=25),
    st.integers(4, 30),
    st.sampled_from(["packed", "padded"]),
    st.integers(0, 2),
)
def test_an_epoch_shows_every_conversation_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]], seq_length: int, batching: str, seed: int
) -> None:
    pairs: list[Pair] = [(ids, [0] + [1] * (len(ids) - 1)) for ids in texts]
    made = plan(tmp_path_factory.mktemp("made"), pairs, seq_length=seq_length, batching=batching, seed=seed)
    samples = reader(made, seq_length)
    found = []
    for number in range(len(made)):
        for part in parts(samples[number]):
            trained = [mask for _, _, mask in part]
            assert len(set(trained)) == 1, "padding is a segment of its own"
            if trained[0]:
                found.append([part[0][0], *(label for _, label, _ in part)])
                assert [token for token, _, _ in part[1:]] == found[-1][1:-1]
    assert sorted(found) == sorted(ids[: seq_length + 1] for ids in texts)
    if batching == "padded":
        assert len(made) == len(texts)


def test_every_token_is_trained_in_pretraining(tmp_path: Path) -> None:
    made = reader(plan(tmp_path, [turn([11, 12], [21, 22])], seq_length=8), 8, every_token=True)[0]
    assert made["loss_mask"].tolist() == [1] * 6 + [0] * 2


def train(made: Plan, *, count: int = 1000) -> TrainSamples:
    mixture = Mixture([Source(name="a", weight=Fraction(1), plan=made)], seed=5)
    return TrainSamples(mixture, [reader(made, 64)], count=count)


def test_an_item_depends_on_its_number_alone(tmp_path: Path) -> None:
    made = plan(tmp_path, random_pairs(60, seed=1), seq_length=64)
    forwards = train(made)
    seen = [forwards[item] for item in range(100)]
    backwards = train(made, count=500)
    for item in reversed(range(100)):
        for name, value in backwards[item].items():
            np.testing.assert_array_equal(value, seen[item][name])


def test_numbers_outside_are_refused(tmp_path: Path) -> None:
    samples = train(plan(tmp_path, random_pairs(3, seed=1), seq_length=64), count=10)
    assert len(samples) == 10
    for item in (-1, 10):
        with pytest.raises(IndexError):
            samples[item]


def test_an_evaluation_sees_each_conversation_once(tmp_path: Path) -> None:
    pairs = [random_pairs(17, seed=2), random_pairs(12, seed=3)]
    plans = [plan(tmp_path / name, rows, seq_length=64) for name, rows in zip("ab", pairs, strict=True)]
    readers = [reader(made, 64, source=number) for number, made in enumerate(plans)]
    packs = sum(map(len, plans))
    period = packs + 3
    samples = EvalSamples(readers, seed=5, period=period, count=10 * period)
    for start in (0, period, 9 * period):
        made = [samples[start + place] for place in range(period)]
        for source, rows in enumerate(pairs):
            trained = sum(int(each["loss_mask"].sum()) for each in made if each["source"] == source)
            assert trained == sum(sum(mask) for _, mask in rows)
        assert sum(not each["loss_mask"].any() for each in made) == 3
