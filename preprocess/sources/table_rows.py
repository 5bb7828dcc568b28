"""Rows of Arrow tables by their size: what they take decoded, slices of bounded size, and rows that are left out.

A few bytes of a table can stand for gigabytes: a text of half a megabyte that a dictionary holds once and ten thousand
rows refer to. So texts stay in their dictionaries until the size of each row is known, and are decoded some megabytes
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bools_of, number_array, numbers_of
from sft_shards.formats.columnar import prefix_sums
from sft_shards.formats.errors import RecordError
from sft_shards.preprocess.sources.raw_records import RawBatch, TableBatch, too_large

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 14
"""The most rows in a slice."""
SLICE = 1 << 22
"""Bytes in memory that a slice of rows should stay below."""
VALUES = 1 << 26
"""Values that the lists of a row group, or an array of a record batch, may hold: all of them may belong to one row."""
FIXED = 8
"""Bytes that a number, an offset or a null is counted as."""


def duplicate_column(schema: Any) -> str | None:
    """Return the name of a column or nested field that stands twice in a schema; None where all names differ."""
    names: set[str] = set()
    for field in schema:
        if field.name in names:
            return str(field.name)
        names.add(field.name)
        inner = [field.type.field(place) for place in range(field.type.num_fields)]
        if (found := duplicate_column(inner)) is not None:
            return found
    return None


def slices(first: int, batch: pa.RecordBatch, max_record_bytes: int) -> Iterator[RawBatch]:
    """Yield the rows of a batch, those together that take some megabytes decoded.

    Args:
        first: the number of the first row.
        max_record_bytes: rows that take more are left out (`too_large`).

    Raises:
        pyarrow.ArrowException: a column has a type whose size cannot be told, or too many values.
    """
    import pyarrow as pa

    if (name := duplicate_column(batch.schema)) is not None:
        error = RecordError("duplicate_column", f"two columns or fields are called {name!r}")
        for begin in range(0, batch.num_rows, ROWS):
            yield RawBatch(first + begin, [error] * min(ROWS, batch.num_rows - begin))
        return
    if batch.num_rows > VALUES:
        raise pa.ArrowInvalid(f"{batch.num_rows:,} rows in one record batch, more than {VALUES:,}; write smaller ones")
    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for column in batch.columns:
        sizes += row_sizes(column)
    for begin, end in _cuts(sizes, max_record_bytes):
        if end - begin == 1 and sizes[begin] > max_record_bytes:
            yield RawBatch(first + begin, [too_large(max_record_bytes)])
        else:
            yield from _valid_rows(first + begin, batch.slice(begin, end - begin))


def row_sizes(column: pa.Array) -> NDArray[np.int64]:
    """Return int64[n]: the bytes that each row of a column takes decoded.

    The lists [["ab", "c"], ["def"]] take 8 + (8 + 2) + (8 + 1) and 8 + (8 + 3) bytes.

    Raises:
        pyarrow.ArrowNotImplementedError: a type in which rows can share their values in another way.
        pyarrow.ArrowInvalid: the column has too many values (nulls take no memory, and so any number of them), or an
            index outside of its dictionary.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(column) > VALUES:
        raise pa.ArrowInvalid(f"{len(column):,} values in one record batch, more than {VALUES:,}; write smaller ones")
    kind, types = column.type, pa.types
    sizes = np.full(len(column), FIXED, dtype=np.int64)
    if types.is_dictionary(kind):
        found = pc.min_max(column.indices).as_py()
        if found["max"] is not None and not 0 <= found["min"] <= found["max"] < len(column.dictionary):
            raise pa.ArrowInvalid("an index lies outside of its dictionary")
        values = np.append(row_sizes(column.dictionary), FIXED)
        sizes = values[numbers_of(column.indices, null=0)]
        if column.null_count:
            sizes[~bools_of(column.indices.is_valid())] = FIXED
        return np.asarray(sizes)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return sizes + _lengths(column)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        views = np.frombuffer(column.buffers()[1] or b"", dtype=np.int32).reshape(-1, 4)  # each begins with its length
        lengths = views[column.offset : column.offset + len(column), 0]
        return np.asarray(sizes + np.where(bools_of(column.is_valid()), lengths, 0))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        offsets = numbers_of(column.offsets).astype(np.int64)
        values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
        sums = prefix_sums(row_sizes(values))
        return np.asarray(sizes + np.diff(sums[offsets - offsets[0]]))
    if types.is_fixed_size_list(kind):
        sums = prefix_sums(row_sizes(column.values.slice(column.offset * kind.list_size, len(column) * kind.list_size)))
        return sizes + np.diff(sums[:: kind.list_size] if kind.list_size else np.zeros(len(column) + 1))
    if types.is_struct(kind):
        for place in range(kind.num_fields):
            sizes += row_sizes(column.field(place))
        return sizes
    if isinstance(column, pa.ExtensionArray):
        return row_sizes(column.storage)
    if types.is_null(kind):
        return sizes
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        return np.asarray(sizes + kind.bit_width // 8)
    raise pa.ArrowNotImplementedError(f"a column of type {kind} cannot be read; save it as another one")


def _lengths(column: Any) -> NDArray[np.int64]:
    """Return int64[n]: the bytes of each text, by its offsets."""
    import pyarrow as pa

    if not len(column):
        return np.zeros(0, dtype=np.int64)
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64 if wide else np.int32)
    return np.diff(offsets[column.offset : column.offset + len(column) + 1]).astype(np.int64)


def _cuts(sizes: NDArray[np.int64], max_record_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows, [begin, end), that take at most `SLICE` bytes together; a larger row is alone.

    With a `SLICE` of 10, the sizes [4, 4, 4, 20, 1] give [0, 2), [2, 3), [3, 4) and [4, 5).
    """
    sums = prefix_sums(sizes)
    begin, most = 0, min(SLICE, max_record_bytes)
    while begin < len(sizes):
        end = int(np.searchsorted(sums, sums[begin] + most, side="right")) - 1
        end = min(max(end, begin + 1), begin + ROWS, len(sizes))
        yield begin, end
        begin = end


def _valid_rows(first: int, batch: pa.RecordBatch) -> Iterator[RawBatch]:
    """Yield rows, halved until those with a text that is not UTF-8 are alone: writers do not check."""
    import pyarrow as pa

    # A slice of a list column still has the items of all lists.
    own = batch.take(number_array(np.arange(batch.num_rows)))
    own = pa.RecordBatch.from_arrays([decoded(column) for column in own.columns], own.schema.names)
    try:
        own.validate(full=True)
        yield TableBatch(first, own)
    except pa.ArrowInvalid:
        if batch.num_rows == 1:
            yield RawBatch(first, [RecordError("broken_utf8", "a text of the row is not UTF-8")])
            return
        half = batch.num_rows // 2
        yield from _valid_rows(first, batch.slice(0, half))
        yield from _valid_rows(first + half, batch.slice(half))


def decoded(column: pa.Array) -> pa.Array:
    """Return a column whose texts stand in it, and not in a dictionary."""
    plain = _without_dictionaries(column.type)
    return column if plain == column.type else column.cast(plain)


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _without_dictionaries(kind.value_type)
    fields = [kind.field(place) for place in range(kind.num_fields)]
    inner = [field.with_type(_without_dictionaries(field.type)) for field in fields]
    if [field.type for field in inner] == [field.type for field in fields]:
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    if pa.types.is_map(kind):
        return pa.map_(inner[0].type.field(0), inner[0].type.field(1)) if len(inner) == 1 else pa.map_(*inner)
    if pa.types.is_large_list(kind):
        return pa.large_list(inner[0])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    return pa.list_(inner[0])
