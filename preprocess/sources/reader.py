"""Reading one part of a source: batches of records, and the hash of the part's bytes.

A batch is what a chunk of about 4 MB of lines holds (or as many rows of a table), so that memory is bounded by
bytes and not by a number of records: 256 conversations may be 100 KB or 100 MB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources import json_array, tables
from sft_shards.preprocess.sources.lines import MAX_RECORD, line_chunks, range_chunks
from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.raw_records import Records, Texts
from sft_shards.preprocess.sources.source import Item, Source
from sft_shards.preprocess.sources.streams import (
    BATCH,
    BLOCK,
    BOM,
    blocks,
    compressed_blocks,
    hash_range,
    open_compressed,
)

ENDLESS = 1 << 62


class PartReader:
    """The records of one part of a source.

    Attributes:
        sha256: of the part's bytes, once `batches` came to its end.
        consumed: bytes of plain text read so far; 0 for other kinds, of which one cannot tell.

    Raises:
        DataError: the source is not the file that was planned, cannot be read, or is damaged in a way that leaves
            no next record to go on with.
    """

    def __init__(self, source: Source, part: Part) -> None:
        self.source = source
        self.part = part
        self.consumed = 0
        self._digest = hashlib.sha256()
        self._hashed_on_the_way = source.kind in ("jsonl", "json") and not source.compression

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the bytes [begin, end) of the file."""
        if self._hashed_on_the_way:
            return self._digest.hexdigest()
        return hash_range(self.source.file, self.part.begin, self.part.end)

    def batches(self) -> Iterator[Records]:
        """The records in order, numbered from 0 within the part. The source is checked before and after."""
        self.source.check()
        try:
            yield from self._batches()
        except OSError as error:
            raise DataError(f"{self.source.path}: cannot be read ({error.strerror or error})") from None
        self.source.check()

    def _batches(self) -> Iterator[Records]:
        source, part = self.source, self.part
        if source.kind in ("parquet", "arrow"):
            yield from tables.read_units(source, part.first, part.last)
        elif source.kind == "csv":
            if source.compression:
                with open_compressed(source.file, source.compression) as stream:
                    yield from tables.read_csv(stream, source)
            else:
                with open(source.file, "rb") as file:
                    yield from tables.read_csv(file, source)
        elif source.kind == "json":
            yield from _of_items(self._items())
        elif source.kind == "object":
            whole = _whole(source)
            yield Records(0, [whole]) if isinstance(whole, RecordError) else Texts.of_items(0, [whole])
        else:
            yield from _of_lines(self.chunks())

    def chunks(self) -> Iterator[bytes | RecordError]:
        """Whole lines of JSONL, about 4 MB at a time; a RecordError in the place of a line that is too long."""
        if self.source.compression:
            yield from line_chunks(compressed_blocks(self.source, together=BATCH), ENDLESS)
            return
        with open(self.source.file, "rb") as file:
            for chunk in range_chunks(file, self.part.begin, self.part.end, self._digest):
                self.consumed = file.tell() - self.part.begin
                yield chunk

    def _items(self) -> Iterator[bytes | RecordError]:
        source, part = self.source, self.part
        if source.compression:
            yield from json_array.items(compressed_blocks(source), ENDLESS, source.path)
            return
        with open(source.file, "rb") as file:
            yield from json_array.items(blocks(file, part.begin, part.end, self._digest), part.end, source.path)


def sample(source: Source, count: int) -> list[Item]:
    """The first records of a source, as a part gives them, but parsed.

    Raises:
        DataError: as for a part.
    """
    items = (item for batch in PartReader(source, whole_of(source)).batches() for item in batch)
    return [(at, parse(item) if isinstance(item, bytes) else item) for at, item in islice(items, count)]


def whole_of(source: Source) -> Part:
    """All of a source as one part; DataError for a damaged table."""
    units = len(tables.unit_sizes(source)) if source.kind in ("parquet", "arrow") else 0
    return Part(end=source.bytes, last=units)


def _of_lines(chunks: Iterator[bytes | RecordError]) -> Iterator[Records]:
    number = 0
    for chunk in chunks:
        records = Texts.of_lines(number, chunk) if isinstance(chunk, bytes) else Records(number, [chunk])
        yield records
        number += len(records)


def _of_items(items: Iterator[bytes | RecordError]) -> Iterator[Records]:
    batch: list[bytes] = []
    number = held = 0
    for item in items:
        if isinstance(item, bytes):
            batch.append(item)
            held += len(item)
        if held >= BLOCK * BATCH or not isinstance(item, bytes):
            yield Texts.of_items(number, batch)
            number += len(batch)
            batch, held = [], 0
        if not isinstance(item, bytes):
            yield Records(number, [item])
            number += 1
    yield Texts.of_items(number, batch)


def _whole(source: Source) -> bytes | RecordError:
    size = 0
    pieces = []
    with open(source.file, "rb") as file:
        stream = compressed_blocks(source) if source.compression else blocks(file, 0, 0, hashlib.sha256())
        for _, piece in stream:
            size += len(piece)
            if size > MAX_RECORD:
                return RecordError("too_large", f"longer than {MAX_RECORD:,} bytes")
            pieces.append(piece)
    return b"".join(pieces).removeprefix(BOM)


def parse(text: bytes | RecordError) -> Any | RecordError:
    """The value of one JSON text, or why it has none."""
    if isinstance(text, RecordError):
        return text
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RecordError("broken_utf8", f"byte {error.start} is not UTF-8")
    except json.JSONDecodeError as error:
        return RecordError("broken_json", f"{error.msg} at character {error.pos}")
    except RecursionError:
        return RecordError("broken_json", "nested too deeply")
    except ValueError as error:
        return RecordError("broken_json", str(error)[:200])
