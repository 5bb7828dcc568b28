"""The sample that is compared while a job runs: how it is drawn, and what becomes of differences."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pipelines import Planted, as_json, make_pipeline, messages

from sft_shards.formats.errors import DataError
from sft_shards.formats.records import get
from sft_shards.preprocess.pipeline.verification import Verification
from sft_shards.preprocess.tokenizer.backends import TokenIds

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("change", [lambda number: (number + 1) % 1500, lambda number: 7, lambda number: 1400])
def test_a_planted_difference_is_caught_and_named(make_tokenizer, change):
    pipeline = make_pipeline(make_tokenizer("bytes"), wrap=lambda backend: Planted(backend, "number 733.", change))
    records = [messages("ask", f"answer number {number}.") for number in range(1000)]
    for begin in (0, 250):
        pipeline.batch(as_json(records[begin : begin + 250], begin), "openai")
    found = r"record 733: planted gives other ids than Hugging Face from token 3 on.*--tokenizer-engine hf"
    with pytest.raises(DataError, match=found):
        pipeline.batch(as_json(records[500:], 500), "openai")


def test_a_difference_that_no_sum_shows_is_found_by_the_sample(make_tokenizer):
    folder = make_tokenizer("bytes")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    token, twin = next(
        (a, a[::-1])
        for a in vocabulary
        if len(a) == 2 and a != a[::-1] and a[::-1] in vocabulary and a.isalpha() and a.isascii()
    )
    swap = {vocabulary[token]: vocabulary[twin]}

    class Swapped(Planted):
        def encode(self, texts):
            tokens = self.backend.encode(texts)
            ids = [swap.get(int(number), number) for number in tokens.ids]
            return TokenIds(ids=np.asarray(ids, dtype=np.int32), offsets=tokens.offsets)

    pipeline = make_pipeline(folder, wrap=lambda backend: Swapped(backend, "", int))
    with pytest.raises(DataError, match=r"record 0: .* gives other ids"):
        pipeline.batch(as_json([messages("x", token)]), "openai")


def test_a_record_of_which_two_ways_differ_is_left_out(make_tokenizer):
    """Spans of all turns, compared with those of a reference that trains the last turn alone."""
    one, other = (make_pipeline(make_tokenizer("bytes"), train_on=turns).reference for turns in ("all", "last"))
    raw, format_ = as_json([messages("x", "y"), messages("q", "first", "q", "b"), messages("x", "z")]), get("openai")
    rendered = one.render(one.read(raw, format_))
    tokenized = one.tokenize(rendered)
    assert Verification(one, "hf", 1).verify(raw, format_, rendered, tokenized) is tokenized
    kept = Verification(other, "hf", 1).verify(raw, format_, rendered, tokenized)
    assert kept.records.tolist() == [0, 2]
    (reject,) = kept.rejects
    assert (reject.record, reject.reason) == (1, "paths_differ")
    assert "'first" in reject.detail


def test_a_mask_that_differs_leaves_the_record_out(make_tokenizer):
    reference = make_pipeline(make_tokenizer("bytes")).reference
    raw, format_ = as_json([messages("x", "y"), messages("q", "a")]), get("openai")
    rendered = reference.render(reference.read(raw, format_))
    tokenized = reference.tokenize(rendered)
    mask = tokenized.loss_mask.copy()
    mask[0] = 1
    kept = Verification(reference, "hf", 1).verify(raw, format_, rendered, replace(tokenized, loss_mask=mask))
    assert kept.records.tolist() == [1]
    assert [(one.record, one.reason) for one in kept.rejects] == [(0, "paths_differ")]
    assert "batch path alone trains tokens [0]" in kept.rejects[0].detail


def test_the_sample_is_compared_with_the_rule(make_tokenizer, monkeypatch):
    """A template that is trusted, and yet locates a turn elsewhere than inference: the rule finds it."""
    pipeline = make_pipeline(make_tokenizer("bytes"))
    template = pipeline.reference.template
    locate = template._locate
    monkeypatch.setattr(
        template, "_locate", lambda *args: tuple(replace(one, start=one.start + 1) for one in locate(*args))
    )
    batch = pipeline.batch(as_json([messages("x", "yes")]), "openai")
    assert [(one.record, one.reason) for one in batch.rejects] == [(0, "turn_differs")]
    assert "but inference generates" in batch.rejects[0].detail


def test_the_sample_is_seeded_and_of_the_size_asked_for(make_tokenizer, monkeypatch):
    monkeypatch.setattr("sft_shards.preprocess.pipeline.verification.ALWAYS_VERIFIED", 0)
    pipeline = make_pipeline(make_tokenizer("bytes"))
    verification = Verification(pipeline.reference, "hf", 100)
    chosen = verification.sample(np.arange(100_000))
    assert 900 < chosen.sum() < 1100
    assert chosen.tolist() == [bool(verification.sample(np.arange(at, at + 1))[0]) for at in range(100_000)]


def test_the_first_sequences_of_a_process_are_all_compared(make_tokenizer):
    verification = Verification(make_pipeline(make_tokenizer("bytes")).reference, "hf", 0)
    assert [int(verification.sample(np.arange(60)).sum()) for _ in range(3)] == [60, 40, 0]
