"""Thrift's compact protocol, in which Parquet writes its footer and the headers of its pages.

What it means is in https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift; here it is read
into numbers, texts, lists and dicts by field number, and nothing that a damaged file says is believed.
"""

from __future__ import annotations

from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
MAX_NESTING = 16
"""Structs and lists within each other; a footer has six."""


class ThriftError(ValueError):
    """Bytes that are not what they should be."""


class ThriftReader:
    """Reads values one after the other.

    Attributes:
        place: of the next byte.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a struct by number: integers, bytes, lists and structs; None for other kinds.

        Raises:
            ThriftError: it ends too early, is nested too deeply, or holds a kind that Parquet has not.
        """
        if depth > MAX_NESTING:
            raise ThriftError("is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            kind, step = head & 0x0F, head >> 4
            number = number + step if step else self._integer()
            found[number] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int, *, inside: bool = False) -> Any:
        """Read a value; within a list, a truth value has a byte of its own."""
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            return [self._value(head & 0x0F, depth + 1, inside=True) for _ in range(count)]
        if kind in (_TRUE, _FALSE):
            return self._byte() if inside else None
        if kind in (_BYTE, _DOUBLE):
            self._take(1 if kind == _BYTE else 8)
            return None
        raise ThriftError(f"holds a value of kind {kind}")

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise ThriftError("has no end")
        self.place += 1
        return self._data[self.place - 1]

    def _take(self, count: int) -> bytes:
        begin = self.place
        self.place += count
        if self.place > len(self._data):
            raise ThriftError("has no end")
        return self._data[begin : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ThriftError("holds a number without end")

    def _integer(self) -> int:
        """Read a signed number: 0, -1, 1, -2 are stored as 0, 1, 2, 3."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
