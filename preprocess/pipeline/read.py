"""The read stage: raw records to conversations.

    RawBatch ──▶ ConversationBatch

The reference implementation hands one record at a time to its format, which says what is wrong with it. The batch
implementation reads records as Arrow columns, if the format can (`ColumnarFormat`): rows of a table are
columns already, JSON texts are read into columns by `json_columns`. It hands the other records to the reference; what
turns out to be text-only there joins the columns again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sft_shards.formats.columnar import ConversationColumns, utf8_buffers
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import ColumnarFormat, FieldMap, RecordFormat
from sft_shards.preprocess.pipeline.batch import ConversationBatch, Reject
from sft_shards.preprocess.pipeline.whitespace import are_blank
from sft_shards.preprocess.sources import JsonBatch, RawBatch, TableBatch
from sft_shards.preprocess.sources.json_columns import read_columns

if TYPE_CHECKING:
    import pyarrow as pa


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
        nothing = ConversationColumns.from_rows({})
        return ConversationBatch(first_record=raw.first, columns=nothing, others=found, rejects=rejects)


class BatchReading:
    """Reads records as columns.

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
        columns = ConversationColumns.from_rows({})
        if isinstance(format_, ColumnarFormat):
            columns = _without_blank_texts(read_in_columns(raw, format_, self._fields))
        batch = ConversationBatch(first_record=raw.first, columns=columns, others={})
        if len(columns.rows) == len(raw):
            return batch
        rest = np.setdiff1d(np.arange(len(raw)), columns.rows, assume_unique=True).tolist()
        self.fallbacks += len(rest)
        one_by_one = self._reference.read(raw, format_, rest)
        return ConversationBatch.merge([batch, _in_columns(one_by_one)])


def read_in_columns(raw: RawBatch, format_: ColumnarFormat, fields: FieldMap) -> ConversationColumns:
    """Return the conversations among records that columns can tell; rows are positions in `raw`.

    A conversation with a blank text may be among them even if the format refuses it (see `ColumnarFormat`).
    """
    found = []
    for rows, columns in _columns(raw, format_, fields):
        chunk = format_.read_columns(columns, fields)
        if chunk is not None:
            found.append(replace(chunk, rows=np.asarray(rows, dtype=np.int64)[chunk.rows]))
    return ConversationColumns.concatenate(found)


def _columns(
    raw: RawBatch, format_: ColumnarFormat, fields: FieldMap
) -> Iterator[tuple[Sequence[int], pa.RecordBatch]]:
    """Yield records as columns with their rows, as many of `raw` as can be read so."""
    if isinstance(raw, TableBatch):
        yield range(len(raw)), raw.columns
    elif isinstance(raw, JsonBatch):
        for chunk in read_columns(raw, lambda record: format_.json_schemas(record, fields)):
            yield chunk.rows, chunk.columns


def _without_blank_texts(columns: ConversationColumns) -> ConversationColumns:
    """Leave out conversations with a blank text: only the format's `read` knows what becomes of these."""
    blank = are_blank(*utf8_buffers(columns.texts))
    if not blank.any():
        return columns
    return columns.filter(~np.logical_or.reduceat(blank, columns.text_offsets[:-1]))


def _in_columns(batch: ConversationBatch) -> ConversationBatch:
    """Move the conversations that are text-only, and have no blank text, from `others` to the columns."""
    found = {row: parts for row, one in batch.others.items() if (parts := one.text_only()) is not None}
    found = {row: (roles, texts) for row, (roles, texts) in found.items() if all(map(str.strip, texts))}
    others = {row: one for row, one in batch.others.items() if row not in found}
    return replace(batch, columns=ConversationColumns.from_rows(found), others=others)
