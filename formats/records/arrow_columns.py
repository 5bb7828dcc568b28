"""The short cut for records that are nothing but roles and texts: many of them as columns, looked at at once.

A record costs some microseconds when Python looks at it, and next to nothing among others in Arrow's columns, which is
how Parquet has them and how Arrow reads JSON. A format says which columns its text-only records have (`Layout`), and
what it makes of them; whatever is not certain from the columns alone is left to `RecordFormat.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import utf8_buffers
from sft_shards.formats.records.fields import BESIDE

if TYPE_CHECKING:
    import pyarrow as pa

NO_TEXT = ("history",)
"""Fields in which even an empty text is an error."""


def all_columns(batch: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
    """Those of several columns that are there, in this order."""
    return [batch.column(place) for name in names for place in batch.schema.get_all_field_indices(name)]


def pick(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array | None:
    """The first of several columns that is there and has a value. Where it has none for a row, a later one may."""
    found = (column for column in all_columns(batch, names) if column.null_count < batch.num_rows)
    return next(found, None)


def as_texts(column: pa.Array) -> pa.StringArray | None:
    """A column of texts as Arrow's plain kind of it, nulls included; None for other columns."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column if pa.types.is_string(column.type) else None


def valid(column: pa.Array) -> NDArray[np.bool_]:
    """bool[n]: where a column has a value."""
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    found: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return found


def are_bare(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """bool[n]: which records have neither tools, earlier rounds nor media, for certain."""
    bare = np.ones(batch.num_rows, dtype=bool)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in BESIDE and column.null_count < len(column):
            texts = as_texts(column)
            if texts is not None and name not in NO_TEXT:
                bare &= ~filled(texts)
            elif is_list(column.type):
                bare &= column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) == 0
            else:
                bare &= ~valid(column)
    return bare


def texts_in(batch: pa.RecordBatch, names: Sequence[str]) -> tuple[pa.StringArray, NDArray[np.bool_]]:
    """What records have in the first of several columns that is not null for them, as texts, and bool[n] where that is
    certain: where none of the columns holds anything else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [(column, as_texts(column)) for column in all_columns(batch, names)]
    texts = [found for _, found in columns if found is not None]
    certain = np.ones(batch.num_rows, dtype=bool)
    for column, found in columns:
        if found is None:
            certain &= ~valid(column)
    return pc.coalesce(*texts) if texts else pa.nulls(batch.num_rows, pa.string()), certain


def filled(texts: pa.StringArray) -> NDArray[np.bool_]:
    """bool[n]: where there is a text, and it is not empty."""
    return valid(texts) & (np.diff(utf8_buffers(texts)[1]) > 0)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of any length."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def taken(texts: Sequence[pa.StringArray], places: NDArray[np.int64]) -> pa.StringArray:
    """Some of the texts of several columns, counted through, in any order, with no gaps in between."""
    import pyarrow as pa

    return pa.concat_arrays(texts).take(pa.array(places))


def cut_out(values: NDArray[np.uint8], begins: NDArray[Any], ends: NDArray[Any]) -> pa.StringArray:
    """Cut spans of bytes, in order and apart, out of a UTF-8 text; one string for each."""
    import pyarrow as pa

    cuts = np.stack([begins, ends], axis=1).astype(np.int32).reshape(-1)
    buffers = [None, pa.py_buffer(cuts), pa.py_buffer(values)]
    pieces = pa.Array.from_buffers(pa.string(), max(len(cuts) - 1, 0), buffers)
    return pieces.take(pa.array(np.arange(0, len(cuts), 2)))
