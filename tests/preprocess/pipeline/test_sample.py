"""Which records are verified: some of each kind, never more than their share of the text, and a seeded share."""

import numpy as np
import pytest
from pipelines import rendered_from

from sft_shards.preprocess.pipeline.sample import LEAST, PER_KIND, SHARE, Sample

pytestmark = pytest.mark.unit


def chosen_of(sample, texts, spans=None, text_only=True):
    rendered = rendered_from(texts, spans)
    flags = np.full(len(texts), text_only) if isinstance(text_only, bool) else np.asarray(text_only)
    return np.flatnonzero(sample.choose(rendered, flags, rendered.records)).tolist()


def test_the_first_ones_of_each_kind_are_chosen():
    sample = Sample(0)
    texts = ["abcdef"] * 60
    spans = [[(0, 1)] if number < 30 else [(0, 1), (2, 3), (4, 5)] for number in range(60)]
    text_only = [number % 2 == 0 for number in range(60)]
    found = chosen_of(sample, texts, spans, text_only)
    kinds = [(len(spans[row]), text_only[row]) for row in found]
    assert [kinds.count(kind) for kind in ((1, True), (1, False), (3, True), (3, False))] == [15, 15, 15, 15]
    assert PER_KIND == 16
    found = chosen_of(sample, texts, spans, text_only)
    assert found == [0, 1, 30, 31], "one more of each, and that is all"
    assert chosen_of(sample, texts, spans, text_only) == []
    assert chosen_of(sample, texts, [[(0, 1)] * 2] * 60) == [], "2 and 3 turns are of one kind"


def test_what_is_chosen_is_a_small_part_of_the_text():
    """However long the records are, and however many kinds of them there are."""
    sample, spent, text = Sample(0), 0, 0
    dice = np.random.default_rng(1)
    for _ in range(200):
        lengths = dice.integers(1, 20_000, 20).tolist()
        texts = ["x" * length for length in lengths]
        spans = [[(at, at + 1) for at in range(min(length, 1 << int(dice.integers(8))))] for length in lengths]
        text += sum(lengths)
        spent += sum(lengths[row] for row in chosen_of(sample, texts, spans, dice.random(20) < 0.5))
        assert 0 < spent <= LEAST + text / SHARE
    assert spent > LEAST, "it grows with the text"


def test_one_record_of_a_task_is_chosen_however_long_all_of_them_are():
    assert chosen_of(Sample(0), ["x" * 300_000, "y" * 200_000, "z" * 250_000]) == [1]
    assert chosen_of(Sample(0), []) == []


def test_a_share_is_chosen_by_record_number():
    """Whatever it costs: the user asked for it."""
    texts = ["x"] * 20_000
    all_at_once = chosen_of(Sample(100), texts)
    assert 150 < len(all_at_once) - PER_KIND < 250
    sample = Sample(100)
    rendered, flags = rendered_from(texts), np.ones(len(texts), dtype=bool)
    by_two = [sample.choose(rendered, flags, rendered.records[at : at + 2]) for at in range(0, len(texts), 2)]
    assert np.flatnonzero(np.concatenate(by_two)).tolist() == all_at_once
    assert chosen_of(Sample(1), ["x" * 100_000] * 3) == [0, 1, 2]


def test_records_that_are_gone_are_not_chosen():
    rendered = rendered_from(["a", "b", "c"])
    chosen = Sample(0).choose(rendered, np.ones(3, dtype=bool), np.asarray([0, 2]))
    assert chosen.tolist() == [True, True]
