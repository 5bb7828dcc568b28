"""How large the record batches of an Arrow file are decompressed, read without decompressing one.

A compressed buffer says in its first eight bytes how long it becomes, and pyarrow allocates that much at once for each
batch. Where the buffers lie stands in the message's metadata, a FlatBuffer
(https://github.com/apache/arrow/blob/main/format/Message.fbs), of which two tables are wanted here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = 8
"""Bytes before the first message of a file with an index; the messages are those of a stream."""
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
"""`MessageHeader` by number."""


def decompressed_sizes(file: pa.NativeFile, *, indexed: bool) -> Iterator[int]:
    """Yield the bytes that the buffers of each record batch and dictionary take decompressed; 0 without compression.

    Args:
        file: the Arrow file.
        indexed: whether it has an index, and so begins with `MAGIC` bytes.

    Raises:
        pyarrow.ArrowException, struct.error: a message is damaged.
    """
    import pyarrow as pa

    file.seek(MAGIC if indexed else 0)
    for message in pa.ipc.MessageReader.open_stream(file):
        yield _decompressed_size(message.metadata.to_pybytes(), message.body)


def _decompressed_size(metadata: bytes, body: pa.Buffer | None) -> int:
    message = _Table(metadata, struct.unpack_from("<I", metadata)[0])
    kind = message.number(1, "<B")
    batch = message.table(2)
    if kind == DICTIONARY_BATCH and batch is not None:
        batch = batch.table(1)
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH) or batch is None or batch.place_of(3) is None or body is None:
        return 0
    total = 0
    for offset, length in batch.pairs(2):
        if length >= 8:
            total += max(struct.unpack("<q", body.slice(offset, 8).to_pybytes().ljust(8, b"\xff"))[0], 0)
    return total


class _Table:
    """A table of a FlatBuffer: an offset back to a list of where its fields stand, 0 for one that is not there."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._fields = place - struct.unpack_from("<i", data, place)[0]

    def place_of(self, field: int) -> int | None:
        """Return where a field stands, by its number in the schema; None where it is not there."""
        size = struct.unpack_from("<H", self._data, self._fields)[0]
        if 4 + 2 * field >= size:
            return None
        offset = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * field)[0]
        return self._place + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Return a number; 0 where it is not there."""
        place = self.place_of(field)
        return 0 if place is None else int(struct.unpack_from(form, self._data, place)[0])

    def table(self, field: int) -> _Table | None:
        """Return the table that a field refers to."""
        place = self.place_of(field)
        return None if place is None else _Table(self._data, place + struct.unpack_from("<I", self._data, place)[0])

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of int64 of a list of such structs."""
        place = self.place_of(field)
        if place is not None:
            begin = place + struct.unpack_from("<I", self._data, place)[0]
            count = struct.unpack_from("<I", self._data, begin)[0]
            for number in range(count):
                yield struct.unpack_from("<qq", self._data, begin + 4 + 16 * number)
