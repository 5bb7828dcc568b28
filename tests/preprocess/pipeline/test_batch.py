"""Batches that are merged and selected, against loops over records."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import as_lists

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.preprocess.pipeline.batch import (
    Batch,
    ConversationBatch,
    Reject,
    RenderedBatch,
    TokenizedBatch,
    count_trained,
)

pytestmark = pytest.mark.unit
SEQUENCE = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 1)), min_size=1, max_size=5)
RECORDS = st.dictionaries(st.integers(0, 30), st.none() | SEQUENCE, max_size=10)
"""By record number a sequence of ids with their masks; None for a record that is rejected."""


def flat(lists, dtype):
    return np.asarray([value for one in lists for value in one], dtype=dtype)


def batch_of(records, dedup=True):
    """A batch, put together record by record."""
    kept = {record: found for record, found in sorted(records.items()) if found is not None}
    digests = np.asarray([[record] * 16 for record in kept], dtype=np.uint8).reshape(-1, 16)
    return Batch(
        records=np.asarray(list(kept), dtype=np.int64),
        splits=np.asarray([record % 3 for record in kept], dtype=np.uint8),
        digests=digests if dedup else digests[:0],
        lengths=np.asarray(list(map(len, kept.values())), dtype=np.int64),
        ids=flat([[one for one, _ in found] for found in kept.values()], np.int32),
        loss_mask=flat([[one for _, one in found] for found in kept.values()], np.uint8),
        trained=np.asarray([sum(one for _, one in found) for found in kept.values()], dtype=np.int64),
        rejects=[reject(record) for record, found in sorted(records.items()) if found is None],
        notes=Counter({"cut": len(kept), "x": sum(record % 2 for record in kept)}) + Counter(),
    )


def reject(record):
    return Reject(record=record, reason="broken_json", detail=str(record))


def parts_of(records, owners, count=3):
    """The records dealt out to a few parts."""
    return [{record: found for record, found in records.items() if owners[record] == part} for part in range(count)]


@given(RECORDS, st.lists(st.integers(0, 2), min_size=31, max_size=31), st.booleans())
def test_merged_batches_are_the_batch_made_record_by_record(records, owners, dedup):
    merged = Batch.merge([batch_of(part, dedup) for part in parts_of(records, owners)])
    assert as_lists(merged) == as_lists(batch_of(records, dedup))
    assert merged.ids.dtype == np.int32
    assert merged.loss_mask.dtype == merged.splits.dtype == np.uint8


@given(RECORDS)
def test_the_sequences_of_one_split(records):
    batch = batch_of(records)
    for number, split in enumerate(("train", "valid", "test")):
        own = {record: found for record, found in records.items() if found is not None and record % 3 == number}
        got, expected = as_lists(batch.of_split(split)), as_lists(batch_of(own))
        names = ("records", "splits", "digests", "lengths", "ids", "loss_mask", "trained")
        assert {name: got[name] for name in names} == {name: expected[name] for name in names}


def tokenized_of(records):
    batch = batch_of(records)
    return TokenizedBatch(
        records=batch.records,
        ids=batch.ids,
        offsets=np.cumsum([0, *batch.lengths.tolist()], dtype=np.int64),
        loss_mask=batch.loss_mask,
        trained=batch.trained,
        straddling=batch.records % 2,
        digests=batch.digests,
        rejects=batch.rejects,
        notes={record: ("n",) for record in batch.records.tolist() if record % 4 == 0},
    )


def rendered_of(records):
    """Texts whose spans and typed control tokens say which record they are of."""
    kept = {record: found for record, found in sorted(records.items()) if found is not None}
    texts = [f"<{record}>é".encode() * len(found) for record, found in kept.items()]
    spans = [[(record, record + at) for at, _ in enumerate(found)] for record, found in kept.items()]
    typed = [[(record, record + 1)] * (record % 2) for record in kept]
    return RenderedBatch(
        records=np.asarray(list(kept), dtype=np.int64),
        text=flat(texts, np.uint8),
        text_offsets=np.cumsum([0, *map(len, texts)], dtype=np.int64),
        openings=frozenset(text.decode()[:2] for text in texts),
        spans=flat(spans, np.int64).reshape(-1, 2),
        span_offsets=np.cumsum([0, *map(len, spans)], dtype=np.int64),
        typed=flat(typed, np.int64).reshape(-1, 2),
        typed_offsets=np.cumsum([0, *map(len, typed)], dtype=np.int64),
        digests=np.asarray([[record] * 16 for record in kept], dtype=np.uint8).reshape(-1, 16),
        rejects=[reject(record) for record, found in sorted(records.items()) if found is None],
        notes={record: ("n",) for record in kept if record % 4 == 0},
    )


@pytest.mark.parametrize("make", [tokenized_of, rendered_of])
@given(records=RECORDS, owners=st.lists(st.integers(0, 2), min_size=31, max_size=31))
def test_merged_and_selected_records_are_those_made_one_by_one(make, records, owners):
    whole = make(records)
    merged = type(whole).merge([make(part) for part in parts_of(records, owners)])
    assert as_lists(merged) == as_lists(whole)
    rows = np.asarray([row for row, record in enumerate(whole.records.tolist()) if owners[record]], dtype=np.int64)
    own = {record: found for record, found in records.items() if found is not None and owners[record]}
    got, expected = as_lists(whole.select(rows)), as_lists(make(own))
    got.pop("openings", None), expected.pop("openings", None)  # more than the texts begin with does no harm
    assert got == expected


CONVERSATION = st.sampled_from(
    [("user", "assistant"), ("system", "user", "assistant"), ("user", "input", "assistant"), None]
)


def conversations_of(records):
    """Records whose role sequence is None are conversations of their own."""
    text_only = {row: roles for row, roles in sorted(records.items()) if roles is not None}
    sequences = sorted(set(text_only.values()))
    return ConversationBatch(
        first_record=5,
        columns=ConversationColumns(
            rows=np.asarray(list(text_only), dtype=np.int64),
            layouts=sequences,
            layout_ids=np.asarray([sequences.index(roles) for roles in text_only.values()], dtype=np.int64),
            texts=pa.array([f"{row} {role}" for row, roles in text_only.items() for role in roles], pa.string()),
        ),
        others={row: conversation(row) for row, roles in sorted(records.items()) if roles is None},
    )


def conversation(row):
    return Conversation(turns=(Turn(role="user", content=str(row)), Turn(role="assistant", content="a", name="n")))


@given(
    st.dictionaries(st.integers(0, 30), CONVERSATION, max_size=10), st.lists(st.booleans(), min_size=31, max_size=31)
)
def test_conversations_are_merged_in_the_order_of_their_rows(records, owners):
    parts = [conversations_of(part) for part in parts_of(records, owners, 2)]
    merged = ConversationBatch.merge(parts)
    assert list(merged.each()) == list(conversations_of(records).each())
    assert [row for row, _ in merged.each()] == sorted(records)
    assert len(merged) == len(records)


def test_trained_tokens_are_counted_by_sequence():
    counted = count_trained(np.asarray([0, 1, 1, 0, 1], dtype=np.uint8), np.asarray([2, 3]))
    assert counted.tolist() == [1, 2]
    assert count_trained(np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64)).tolist() == []
