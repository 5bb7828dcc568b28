"""The sample that is compared while a job runs: how it is drawn, and that differences end the job."""

import json

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


def test_a_wrong_mask_is_found_by_the_sample(make_tokenizer):
    """Masks of all turns, compared with those of a reference that trains the last turn alone."""
    one, other = (make_pipeline(make_tokenizer("bytes"), train_on=turns).reference for turns in ("all", "last"))
    raw, format_ = as_json([messages("x", "y"), messages("q", "a", "q", "b")]), get("openai")
    tokenized = one.tokenize(one.render(one.read(raw, format_)))
    Verification(one, "hf", 1).verify(raw, format_, tokenized)
    with pytest.raises(DataError, match=r"record 1: the mask differs from the one by offsets at token \d+"):
        Verification(other, "hf", 1).verify(raw, format_, tokenized)


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
