"""Arrow columns of text-only records, checked and cut for many records at once.

A record costs some microseconds when Python looks at it, and next to nothing in Arrow's columns, which is how Parquet
holds records and how Arrow reads JSON. Formats use these functions to say what their columns hold; whatever is not
certain from the columns alone is left to `RecordFormat.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bools_of, number_array, numbers_of
from sft_shards.formats.columnar import utf8_buffers

if TYPE_CHECKING:
    import pyarrow as pa

NEVER_TEXT = ("history", "weight", "loss_weight", "train")
"""Fields in which even an empty text is an error."""


def all_columns(batch: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
    """Return those of the named columns that a batch has, in the order of the names."""
    return [batch.column(place) for name in names for place in batch.schema.get_all_field_indices(name)]


def first_filled_column(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array | None:
    """Return the first of the named columns that is not null everywhere."""
    found = (column for column in all_columns(batch, names) if column.null_count < batch.num_rows)
    return next(found, None)


def as_strings(column: pa.Array) -> pa.StringArray | None:
    """Return a column of texts with Arrow's type `string`, nulls included; None for a column of anything else."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column if pa.types.is_string(column.type) else None


def not_null(column: pa.Array) -> NDArray[np.bool_]:
    """Return bool[n]: where a column has a value."""
    if not column.null_count:
        return np.ones(len(column), dtype=bool)
    return bools_of(column.is_valid())


def not_empty(texts: pa.StringArray) -> NDArray[np.bool_]:
    """Return bool[n]: where a text is neither null nor empty."""
    return not_null(texts) & (np.diff(utf8_buffers(texts)[1]) > 0)


def have_nothing_beside(batch: pa.RecordBatch, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool[n]: which records certainly have no value in some columns (tools, earlier rounds, media, …)."""
    bare = np.ones(batch.num_rows, dtype=bool)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in names and column.null_count < len(column):
            texts = as_strings(column)
            if texts is not None and name not in NEVER_TEXT:
                bare &= ~not_empty(texts)
            elif is_list(column.type):
                bare &= numbers_of(column.value_lengths(), null=0) == 0
            else:
                bare &= ~not_null(column)
    return bare


def first_texts(batch: pa.RecordBatch, names: Sequence[str]) -> tuple[pa.StringArray, NDArray[np.bool_]]:
    """Return for each record the text in the first of the named columns that is not null for it.

    Columns `instruction` = ["a", null, null] and `prompt` = [null, "b", null] give ["a", "b", null].

    Returns:
        The texts, null where no column has one; and bool[n], False where another column holds something that is not
        text, so that nothing can be said of the record.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [(column, as_strings(column)) for column in all_columns(batch, names)]
    texts = [found for _, found in columns if found is not None]
    certain = np.ones(batch.num_rows, dtype=bool)
    for column, found in columns:
        if found is None:
            certain &= ~not_null(column)
    return pc.coalesce(*texts) if texts else pa.nulls(batch.num_rows, pa.string()), certain


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists of any length."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def take_texts(columns: Sequence[pa.StringArray], indices: NDArray[np.int64]) -> pa.StringArray:
    """Return texts out of several columns, in any order.

    Args:
        indices: int64[m], counted through all columns: of two columns of length 3, index 4 is `columns[1][1]`.
    """
    import pyarrow as pa

    return pa.concat_arrays(columns).take(number_array(indices))


def slice_texts(values: NDArray[np.uint8], begins: NDArray[Any], ends: NDArray[Any]) -> pa.StringArray:
    """Return spans of one text in UTF-8 as texts.

    The spans [0, 2) and [3, 5) of `ab:cd` give ["ab", "cd"]. All borders together, [0, 2, 3, 5], are the offsets of an
    Arrow array over the same bytes, ["ab", ":", "cd"], of which every other text is taken.

    Args:
        values: u8[B].
        begins, ends: int[m], in bytes; in order and not overlapping.
    """
    import pyarrow as pa

    offsets = np.stack([begins, ends], axis=1).astype(np.int32).reshape(-1)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values)]
    pieces = pa.Array.from_buffers(pa.string(), max(len(offsets) - 1, 0), buffers)
    return pieces.take(number_array(np.arange(0, len(offsets), 2)))
