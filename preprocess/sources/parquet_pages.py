"""The headers of the pages of a Parquet file, read without decompressing a page.

A page of a few bytes can decompress to gigabytes, or hold billions of values of a column that is all the same, and the
footer, which pyarrow shows, need not say so: what pyarrow allocates follows from the header of each page. A header is a
struct in Thrift's compact protocol (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift,
`PageHeader`), of which three numbers are wanted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

HEADER = 1 << 16
"""Bytes that a header may have; it may hold the smallest and the largest value of its page."""
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
MAX_NESTING = 16
"""Structs and lists within each other; a header has three."""


class PageError(ValueError):
    """A header is not one that Parquet has."""


@dataclass(frozen=True, kw_only=True)
class PageHeader:
    """What a page holds."""

    size: int
    """Bytes of its contents, decompressed."""
    stored: int
    """Bytes of its contents in the file."""
    values: int
    """Values of its column, nulls included; 0 for a page of a dictionary or an index."""


def page_headers(file: IO[bytes], column: Any) -> Iterator[PageHeader]:
    """Yield the header of each page of a column chunk.

    Args:
        file: the Parquet file.
        column: `pyarrow.parquet.ColumnChunkMetaData`.

    Raises:
        PageError: a header is damaged, or its page leads out of the file.
    """
    begin = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        begin = min(begin, column.dictionary_page_offset)
    end = begin + column.total_compressed_size
    while begin < end:
        file.seek(begin)
        reader = _Reader(file.read(HEADER))
        fields = reader.struct()
        size, stored = (fields.get(number) for number in (2, 3))
        if not isinstance(size, int) or not isinstance(stored, int) or size < 0 or stored < 0:
            raise PageError("a page has no size")
        data = fields.get(5, fields.get(8, {}))
        values = data.get(1, 0) if isinstance(data, dict) else -1
        if not isinstance(values, int) or values < 0:
            raise PageError("a page has no number of values")
        yield PageHeader(size=size, stored=stored, values=values)
        begin += reader.place + stored


class _Reader:
    """Reads Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the integers and structs among the fields of a struct, by number."""
        if depth > MAX_NESTING:
            raise PageError("a header is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            kind, step = head & 0x0F, head >> 4
            number = number + step if step else self._integer()
            found[number] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int, *, inside: bool = False) -> Any:
        """Read a value; within a list, a truth value has a byte of its own."""
        if kind in (_TRUE, _FALSE):
            return self._byte() if inside else None
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _BYTE:
            return self._skip(1)
        if kind == _DOUBLE:
            return self._skip(8)
        if kind == _BINARY:
            return self._skip(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            for _ in range(count):
                self._value(head & 0x0F, depth + 1, inside=True)
            return None
        raise PageError(f"a header holds a value of kind {kind}")

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise PageError("a header has no end")
        self.place += 1
        return self._data[self.place - 1]

    def _skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self._data):
            raise PageError("a header has no end")

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise PageError("a number has no end")

    def _integer(self) -> int:
        """Read a signed number: 0, -1, 1, -2 are stored as 0, 1, 2, 3."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
