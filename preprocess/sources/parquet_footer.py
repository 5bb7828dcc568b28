"""The column chunks of a Parquet file, as its footer describes them.

pyarrow shows them too, but ends the process where some footers are damaged (an exception of C++ in a property that must
not raise: a histogram of another length than the column needs). So the few numbers that are wanted are read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from sft_shards.preprocess.sources.thrift import ThriftError, ThriftReader

MAGIC = b"PAR1"
TAIL = 8
"""Bytes behind the footer: its length and `MAGIC`."""
BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY = 6, 7
"""Physical types (`Type`)."""
PLAIN_DICTIONARY, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 2, 7, 8
"""Encodings (`Encoding`)."""


@dataclass(frozen=True, kw_only=True)
class ColumnChunk:
    """The values of one column in one row group."""

    path: str
    """Names from the column down, with dots in between."""
    physical_type: int
    encodings: tuple[int, ...]
    values: int
    """Nulls included."""
    first_page: int
    """Where its first page begins in the file, that of a dictionary included."""
    stored: int
    """Bytes in the file."""
    size: int
    """Bytes decompressed."""


def column_chunks(file: IO[bytes]) -> Sequence[Sequence[ColumnChunk]]:
    """Return the column chunks of each row group of a Parquet file.

    Raises:
        ThriftError: the footer is damaged.
    """
    length = file.seek(0, 2)
    file.seek(max(0, length - TAIL))
    tail = file.read(TAIL)
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or size > length - TAIL:
        raise ThriftError("is not at the end of the file")
    file.seek(length - TAIL - size)
    return _parsed(file.read(size))


@lru_cache(maxsize=1)
def _parsed(footer: bytes) -> Sequence[Sequence[ColumnChunk]]:
    groups = _structs(ThriftReader(footer).struct().get(4, []))
    return tuple(tuple(_chunk(column) for column in _structs(_field(group, 1, list))) for group in groups)


def _chunk(column: dict[int, Any]) -> ColumnChunk:
    found = _field(column, 3, dict)
    first, dictionary = _field(found, 9, int), found.get(11)
    if isinstance(dictionary, int) and 0 < dictionary < first:
        first = dictionary
    path = _field(found, 3, list)
    encodings = _field(found, 2, list)
    if not all(isinstance(name, bytes) for name in path) or not all(isinstance(one, int) for one in encodings):
        raise ThriftError("describes a column by values of another type")
    return ColumnChunk(
        path=b".".join(path).decode("utf-8", "replace"),
        physical_type=_field(found, 1, int),
        encodings=tuple(encodings),
        values=_field(found, 5, int),
        first_page=first,
        stored=_field(found, 7, int),
        size=_field(found, 6, int),
    )


def _structs(values: Any) -> Sequence[dict[int, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ThriftError("holds no list of structs where one belongs")
    return values


def _field(struct: dict[int, Any], number: int, kind: type) -> Any:
    value = struct.get(number)
    if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
        raise ThriftError(f"lacks field {number} of a struct, or it has another type")
    return value
