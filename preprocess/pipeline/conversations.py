"""The read stage: raw records to conversations.

    RawBatch ──▶ ConversationBatch

The reference implementation parses one record at a time and hands it to its format, which says what is wrong with it.
The batch implementation lets a format that can (`ColumnarFormat`) read text-only records as Arrow columns (see `read`),
and hands on the others. What then turns out to be text-only joins the columns again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from sft_shards.formats.columnar import TextOnlyConversations, utf8_buffers
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import ColumnarFormat, FieldMap, RecordFormat
from sft_shards.preprocess.pipeline.batch import ConversationBatch, Reject
from sft_shards.preprocess.pipeline.read import read_plain
from sft_shards.preprocess.pipeline.whitespace import are_blank
from sft_shards.preprocess.sources import RawBatch


class ReferenceReading:
    """Reads one record at a time.

    Args:
        fields: which columns and roles the user renamed.
    """

    def __init__(self, fields: FieldMap) -> None:
        self._fields = fields

    def read(self, raw: RawBatch, format_: RecordFormat, rows: Sequence[int] | None = None) -> ConversationBatch:
        """Read records; one that cannot be used is rejected.

        Args:
            rows: which of them, rising (default: all).
        """
        rows = range(len(raw)) if rows is None else rows
        found: dict[int, Conversation] = {}
        rejects: list[Reject] = []
        for row, value in zip(rows, raw.values(rows), strict=True):
            try:
                if isinstance(value, RecordError):
                    raise value
                found[row] = format_.read(value, self._fields)
            except RecordError as error:
                rejects.append(Reject.of(raw.first + row, error.kept()))
        return ConversationBatch(first_record=raw.first, text_only=in_columns({}), others=found, rejects=rejects)


class BatchReading:
    """Reads text-only records as columns.

    Args:
        fields: which columns and roles the user renamed.
        reference: reads the other records.

    Attributes:
        fallbacks: how many records went to the reference.
    """

    def __init__(self, fields: FieldMap, reference: ReferenceReading) -> None:
        self._fields, self._reference = fields, reference
        self.fallbacks = 0

    def read(self, raw: RawBatch, format_: RecordFormat) -> ConversationBatch:
        """Read records; one that cannot be used is rejected."""
        columns = in_columns({})
        if isinstance(format_, ColumnarFormat):
            columns = _without_blank_texts(read_plain(format_, raw, self._fields))
        batch = ConversationBatch(first_record=raw.first, text_only=columns, others={})
        if len(columns.rows) == len(raw):
            return batch
        rest = np.setdiff1d(np.arange(len(raw)), columns.rows, assume_unique=True).tolist()
        self.fallbacks += len(rest)
        one_by_one = self._reference.read(raw, format_, rest)
        return ConversationBatch.merge([batch, _text_only_in_columns(one_by_one)])


def _without_blank_texts(text_only: TextOnlyConversations) -> TextOnlyConversations:
    """Leave out conversations with a blank text: only the format's `read` knows what becomes of these."""
    blank = are_blank(*utf8_buffers(text_only.texts))
    if not blank.any():
        return text_only
    return text_only.filter(~np.logical_or.reduceat(blank, text_only.text_offsets[:-1]))


def _text_only_in_columns(batch: ConversationBatch) -> ConversationBatch:
    """Move the conversations that are text-only, and have no blank text, from `others` to the columns."""
    found = {row: parts for row, one in batch.others.items() if (parts := one.text_only()) is not None}
    found = {row: (roles, texts) for row, (roles, texts) in found.items() if all(map(str.strip, texts))}
    others = {row: one for row, one in batch.others.items() if row not in found}
    return replace(batch, text_only=in_columns(found), others=others)


def in_columns(found: dict[int, tuple[tuple[str, ...], list[str]]]) -> TextOnlyConversations:
    """Put text-only conversations, roles and texts by row, into columns."""
    import pyarrow as pa

    numbers: dict[tuple[str, ...], int] = {}
    sequence_ids = [numbers.setdefault(roles, len(numbers)) for roles, _ in found.values()]
    return TextOnlyConversations(
        rows=np.fromiter(found, dtype=np.int64, count=len(found)),
        role_sequences=list(numbers),
        sequence_ids=np.asarray(sequence_ids, dtype=np.int64),
        texts=pa.array(chain.from_iterable(texts for _, texts in found.values()), pa.string()),
    )
