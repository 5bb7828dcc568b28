"""Reading: what the batch implementation gives is what reading one record at a time gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import FORM, RECORD, TOOLS, as_json, messages

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import put_together
from sft_shards.formats.records import ColumnarFormat, FieldMap, formats, get
from sft_shards.preprocess.pipeline.read import BatchReading, ReferenceReading, read_in_columns
from sft_shards.preprocess.pipeline.render import digests_of
from sft_shards.preprocess.sources import RawBatch

pytestmark = pytest.mark.unit
ANY = RECORD | st.none() | st.just([]) | st.just({}) | st.just(messages("a", "b") | {"tools": TOOLS})


def stages():
    reference = ReferenceReading(FieldMap())
    return BatchReading(FieldMap(), reference), reference


@settings(max_examples=150)
@given(st.lists(ANY, max_size=8), st.sampled_from(sorted(formats())), st.booleans())
def test_both_implementations_read_the_same_conversations(records, form, as_values):
    raw = RawBatch(5, records) if as_values else as_json(records, first=5)
    batch, reference = stages()
    got, expected = batch.read(raw, get(form)), reference.read(raw, get(form))
    assert list(got.each()) == list(expected.each())
    assert list(got.rejects) == list(expected.rejects)
    assert got.first_record == expected.first_record == 5


@given(st.lists(ANY, max_size=8), FORM)
def test_text_only_conversations_are_in_columns_however_they_were_read(records, form):
    got = stages()[0].read(as_json(records), get(form))
    texts = got.columns.texts.to_pylist()
    assert all(text.strip() for text in texts)
    for conversation in got.others.values():
        text_only = conversation.text_only()
        assert text_only is None or not all(text.strip() for text in text_only[1])


@settings(max_examples=150)
@given(RECORD, st.sampled_from(sorted(name for name, one in formats().items() if isinstance(one, ColumnarFormat))))
def test_columns_hold_what_the_format_reads(record, form):
    found = read_in_columns(as_json([record]), get(form), FieldMap())
    texts = found.texts.to_pylist()
    if len(found.rows) and all(text.strip() for text in texts):
        roles = found.layouts[found.layout_ids[0]]
        turns, tools = put_together(roles, texts)
        assert get(form).read(record, FieldMap()) == Conversation(turns=tuple(turns), tools=tuple(tools))


@settings(max_examples=100)
@given(st.lists(RECORD, min_size=1, max_size=6), FORM)
def test_a_digest_is_that_of_the_conversation(records, form):
    text_only = stages()[0].read(as_json(records), get(form)).columns
    for row, digest in zip(text_only.rows, digests_of(text_only), strict=True):
        assert digest == get(form).read(records[row], FieldMap()).digest()


def test_rows_say_which_records_are_read():
    raw = as_json([messages("a", "b"), {"messages": []}, messages("c", "d")], first=7)
    read = ReferenceReading(FieldMap()).read(raw, get("openai"), [1, 2])
    assert list(read.others) == [2]
    assert [(one.record, one.reason) for one in read.rejects] == [(8, "no_assistant_turn")]


def test_only_what_is_not_text_only_is_read_one_by_one():
    batch, _ = stages()
    records = [messages("a", "b"), messages("a", "b") | {"functions": TOOLS}, messages("a", " "), messages("a", "b")]
    read = batch.read(as_json(records), get("openai"))
    assert batch.fallbacks == 2
    assert read.columns.rows.tolist() == [0, 3]
    assert list(read.others) == [1]
    assert [one.reason for one in read.rejects] == ["empty_assistant_turn"]


def test_an_error_is_not_kept_with_what_it_came_through():
    raw = RawBatch(0, [RecordError("broken_csv", "a row with more cells than the header")])
    (reject,) = ReferenceReading(FieldMap()).read(raw, get("openai")).rejects
    assert (reject.record, reject.reason) == (0, "broken_csv")
