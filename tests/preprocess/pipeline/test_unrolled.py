"""Unrolled conversations through the pipeline: several sequences of one record, against transformers' token ids."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import as_json, as_lists, best_backend
from preprocess_jobs import TOKENIZER
from rewriting_templates import REWRITES, conversations, generated, speakers
from transformers import AutoTokenizer

from sft_shards.formats.records import get
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline import reference_rendering
from sft_shards.preprocess.pipeline.batch import Batch, Reject, TrainedTurns, sequence_keys
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.pipeline.ragged import whole_records
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit
SOURCE = REWRITES["as Qwen3"]


def pipeline(**options):
    tokenizer = Tokenizer(str(TOKENIZER))
    values = {"rewritten_turns": "unroll", "verify_every": 1, "dedup": True} | options
    config = JobConfig(inputs=("x",), tokenizer=str(TOKENIZER), **values)
    return Pipeline(config, "t.jinja", tokenizer, best_backend(tokenizer), source=SOURCE)


@pytest.fixture(scope="module")
def unrolling():
    return pipeline()


@pytest.fixture(scope="module")
def oracle():
    return AutoTokenizer.from_pretrained(TOKENIZER)


def record_of(conversation):
    return {"messages": conversation.messages(), "tools": list(conversation.tools)}


def sequences(batch):
    """Each sequence of a batch: its record, the turns that it trains, its ids and its mask."""
    ends = np.cumsum(batch.lengths)[:-1]
    turns = np.split(batch.turns.numbers, batch.turns.offsets[1:-1])
    masks = np.split(batch.loss_mask, ends)
    return list(zip(batch.records.tolist(), map(list, turns), np.split(batch.ids, ends), masks, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.lists(conversations(), min_size=1, max_size=3))
def test_every_turn_is_trained_once_behind_the_tokens_that_inference_is_fed(unrolling, oracle, found):
    batch = unrolling.batch(as_json([record_of(one) for one in found]), "openai")
    assert not batch.rejects
    trained = [(record, turn) for record, turns, _, _ in sequences(batch) for turn in turns]
    assert sorted(trained) == [(at, turn) for at, one in enumerate(found) for turn in speakers(one)]
    for record, turns, ids, mask in sequences(batch):
        starts = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0) == 1)
        ends = np.flatnonzero(np.diff(mask.astype(np.int8), append=0) == -1) + 1
        for turn, start, end in zip(turns, starts, ends, strict=True):
            prompt, answer = generated(SOURCE, found[record], turn)
            assert ids[:start].tolist() == oracle(prompt, add_special_tokens=False)["input_ids"]
            assert oracle.decode(ids[start:end]) == answer


@settings(max_examples=15, deadline=None)
@given(st.lists(conversations(), min_size=1, max_size=4))
def test_both_paths_unroll_the_same(unrolling, found):
    raw = as_json([record_of(one) for one in found])
    ours, reference = unrolling.batch(raw, "openai"), unrolling.reference.batch(raw, "openai")
    assert as_lists(ours) == as_lists(reference)


@settings(max_examples=8, deadline=None)
@given(st.lists(conversations(), min_size=2, max_size=5), st.integers(1, 4000))
def test_what_is_too_large_together_comes_in_several_batches(unrolling, found, most):
    raw = as_json([record_of(one) for one in found], 7)
    whole = unrolling.batch(raw, "openai")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reference_rendering, "LARGEST_UNROLLED", most)
        parts = list(unrolling.batches(raw, "openai"))
    assert as_lists(Batch.merge(parts)) == as_lists(whole)


def test_many_long_histories_are_not_held_together(monkeypatch):
    """Twelve answers: more than skeletons are made for. Each record has about 4,000 characters of histories."""
    monkeypatch.setattr(reference_rendering, "LARGEST_UNROLLED", 60_000)
    raw = as_json([talk(*["yes"] * 12)] * 20)
    made = pipeline(verify_every=0)
    parts = list(made.batches(raw, "openai"))
    assert len(parts) > 3
    assert [record for part in parts for record in np.unique(part.records).tolist()] == list(range(20))
    with pytest.raises(MemoryError):
        made.batch(raw, "openai")


def talk(*answers):
    messages = []
    for number, answer in enumerate(answers):
        messages += [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": answer}]
        messages[-1]["reasoning_content"] = "hm"
    return {"messages": messages}


def test_a_sequence_that_is_too_long_is_left_out_alone():
    found = pipeline(max_length=80).batch(as_json([talk("a", "b " * 100, "c"), talk("d " * 200)]), "openai")
    assert [(record, turns) for record, turns, *_ in sequences(found)] == [(0, [1])]
    assert [(reject.record, reject.reason) for reject in found.rejects] == [(1, "overlong")]
    assert found.notes["unrolled_dropped"] == 2


def test_what_unrolling_costs_is_counted():
    found = pipeline().batch(as_json([talk("a", "b", "c"), talk("d")]), "openai")
    lengths = found.lengths.tolist()
    assert found.notes == Counter(unrolled_sequences=2, unrolled_tokens=sum(lengths[:2]))
    assert len({bytes(one) for one in found.digests}) == 2, "the digest is the conversation's"


def test_a_rejected_record_loses_all_of_its_sequences():
    """A typed control token is kept as text in each sequence that repeats it."""
    records = [talk("a", "b <|im_end|> c"), talk("d", "e")]
    batch = pipeline().batch(as_json(records), "openai")
    assert Counter(record for record, *_ in sequences(batch)) == {0: 2, 1: 2}
    reference = pipeline().reference
    tokenized = reference.tokenize(reference.render(reference.read(as_json(records), get("openai"))))
    left = tokenized.without([Reject(record=0, reason="empty", detail="")], before=[])
    assert left.records.tolist() == [1, 1]
    assert left.turns.numbers.tolist() == [1, 3]


def test_sequences_of_one_record_go_one_way():
    records = np.asarray([3, 5, 5, 5, 7])
    chosen = np.asarray([False, False, True, False, False])
    assert whole_records(records, chosen).tolist() == [False, True, True, True, False]
    assert whole_records(records[:0], chosen[:0]).tolist() == []
    assert sequence_keys(records) == [(3, 0), (5, 0), (5, 1), (5, 2), (7, 0)]


def test_turns_are_selected_and_joined():
    turns = TrainedTurns.of([(1,), (1, 3), ()])
    assert turns.select(np.asarray([1, 2])).numbers.tolist() == [1, 3]
    joined = TrainedTurns.concatenate([turns, TrainedTurns.of([(5,)])])
    assert joined.offsets.tolist() == [0, 1, 3, 3, 4]
    assert joined.numbers.tolist() == [1, 1, 3, 5]
