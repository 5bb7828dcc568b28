"""Text-only records to columns: the batch path of the read stage.

Rows of a table are columns already; JSON texts are read into columns by `json_columns`. The format then says which of
the rows are text-only. Whatever is not given here is read one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sft_shards.formats.columnar import TextOnlyConversations, prefix_sums
from sft_shards.formats.records import ColumnarFormat, FieldMap
from sft_shards.preprocess.sources import JsonBatch, RawBatch, TableBatch
from sft_shards.preprocess.sources.json_columns import read_columns

if TYPE_CHECKING:
    import pyarrow as pa


def read_plain(format_: ColumnarFormat, records: RawBatch, fields: FieldMap) -> TextOnlyConversations:
    """Return the text-only conversations among records, as far as columns can tell; rows are positions in the batch.

    A conversation with a blank text may be among them even if the format refuses it (see `ColumnarFormat`).
    """
    return _concatenate(
        (rows, found)
        for rows, columns in _columns(format_, records, fields)
        if (found := format_.read_columns(columns, fields)) is not None
    )


def _columns(
    format_: ColumnarFormat, records: RawBatch, fields: FieldMap
) -> Iterator[tuple[Sequence[int], pa.RecordBatch]]:
    if isinstance(records, TableBatch):
        yield range(len(records)), records.columns
    elif isinstance(records, JsonBatch):
        for chunk in read_columns(records, lambda record: format_.json_schemas(record, fields)):
            yield chunk.rows, chunk.columns


def _concatenate(chunks: Iterable[tuple[Sequence[int], TextOnlyConversations]]) -> TextOnlyConversations:
    """Concatenate the results of chunks; row numbers become positions in the whole batch.

    A chunk of the records [3, 5, 6] that gave its rows [0, 2] gives the rows [3, 6].
    """
    import pyarrow as pa

    parts = [replace(found, rows=np.asarray(rows, dtype=np.int64)[found.rows]) for rows, found in chunks]
    if len(parts) == 1:
        return parts[0]
    none = np.zeros(0, dtype=np.int64)
    shifts = prefix_sums(np.asarray([len(part.role_sequences) for part in parts], dtype=np.int64))
    return TextOnlyConversations(
        rows=np.concatenate([none, *(part.rows for part in parts)]),
        role_sequences=[roles for part in parts for roles in part.role_sequences],
        sequence_ids=np.concatenate(
            [none, *(part.sequence_ids + shift for part, shift in zip(parts, shifts, strict=False))]
        ),
        texts=pa.concat_arrays([part.texts for part in parts] or [pa.array([], pa.string())]),
    )
