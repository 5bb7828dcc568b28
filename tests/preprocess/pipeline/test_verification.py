"""The sample that is compared while a job runs: how it is drawn, and what becomes of differences."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pipelines import Planted, as_json, make_pipeline, messages

from sft_shards.formats.errors import DataError
from sft_shards.formats.records import get
from sft_shards.formats.templates.turn_locator import TurnLocator
from sft_shards.preprocess.pipeline.sample import PER_KIND
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
    read = one.read(raw, format_)
    rendered = one.render(read)
    tokenized = one.tokenize(rendered)
    assert Verification(one, "hf", 1).verify(raw, format_, read, rendered, tokenized) is tokenized
    kept = Verification(other, "hf", 1).verify(raw, format_, read, rendered, tokenized)
    assert kept.records.tolist() == [0, 2]
    (reject,) = kept.rejects
    assert (reject.record, reject.reason) == (1, "paths_differ")
    assert "'first" in reject.detail


def test_a_mask_that_differs_leaves_the_record_out(make_tokenizer):
    reference = make_pipeline(make_tokenizer("bytes")).reference
    raw, format_ = as_json([messages("x", "y"), messages("q", "a")]), get("openai")
    read = reference.read(raw, format_)
    rendered = reference.render(read)
    tokenized = reference.tokenize(rendered)
    mask = tokenized.loss_mask.copy()
    mask[0] = 1
    kept = Verification(reference, "hf", 1).verify(raw, format_, read, rendered, replace(tokenized, loss_mask=mask))
    assert kept.records.tolist() == [1]
    assert [(one.record, one.reason) for one in kept.rejects] == [(0, "paths_differ")]
    assert "batch path alone trains tokens [0]" in kept.rejects[0].detail


def test_the_sample_is_compared_with_the_rule(make_tokenizer, monkeypatch):
    """A template that is trusted, and yet locates a turn elsewhere than inference: the rule finds it."""
    pipeline = make_pipeline(make_tokenizer("bytes"))
    locate = TurnLocator._locate
    monkeypatch.setattr(
        TurnLocator, "_locate", lambda *args: tuple(replace(one, start=one.start + 1) for one in locate(*args))
    )
    batch = pipeline.batch(as_json([messages("x", "yes")]), "openai")
    assert [(one.record, one.reason) for one in batch.rejects] == [(0, "turn_differs")]
    assert "but inference generates" in batch.rejects[0].detail


def test_what_is_verified_does_not_depend_on_the_tasks_before(make_tokenizer, monkeypatch):
    """A verified record that differs is left out: which ones are must be the same for any number of workers."""
    pipeline = make_pipeline(make_tokenizer("bytes"))
    verified = []
    render = pipeline.reference.render

    def rendered_again(read, **options):
        found = render(read, **options)
        verified.append(found.records.tolist())
        return found

    monkeypatch.setattr(pipeline.reference, "render", rendered_again)
    raw = as_json([messages("ask", f"answer number {number}. " * 9) for number in range(200)])
    for _ in range(2):
        pipeline.start_task()
        pipeline.batch(raw, "openai")
    assert verified[0] == verified[1] == list(range(PER_KIND))
    pipeline.batch(raw, "openai")
    assert len(verified) == 2, "within the task, this kind was seen"
