"""JSON files that are one value: an array of records, or a single record.

The items of an array are found by its brackets, quotes and commas alone, a block at a time. What lies between two
commas of the outermost level is one record, and is parsed by itself: a record that is broken inside costs itself and
no other, and a part can begin behind any such comma. numpy looks for the few characters that matter, so that planning
a large array takes little more than reading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources import streams
from sft_shards.preprocess.sources.detect import HEAD, FileHead, is_message_list
from sft_shards.preprocess.sources.partition import Part, parts_at, spaced_out
from sft_shards.preprocess.sources.raw_records import SPACE, JsonBatch, RawBatch, too_large, within
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import (
    BOM,
    ENDLESS,
    MARGIN,
    MAX_RECORD_BYTES,
    Progress,
    blocks,
    compressed_blocks,
    open_contents,
)
from sft_shards.preprocess.sources.whole_file import WholeFile

QUOTE, BACKSLASH, COMMA, OPEN, CLOSE = b'"\\,{}'
STEP = np.zeros(256, dtype=np.int8)
"""By byte: how much deeper the nesting is behind it."""
STEP[list(b"[{")] = 1
STEP[list(b"]}")] = -1
LOWER = 0x20
"""The bit that makes [ and ] into { and }."""


class JsonArray:
    """One array of records."""

    name = "json"
    suffixes: tuple[str, ...] = (".json",)
    compressible = True

    def matches(self, head: FileHead) -> bool:
        """Return whether the file begins with an array that is not a record itself (a bare list of messages)."""
        if head.text[:1] != "[" or head.first_line_is_a_record:
            return False
        return "\n" in head.text or not is_message_list([head.first_item])

    def keeps_parts_when_appended(self, source: Source) -> bool:
        """Return False: an array does not grow by appending."""
        return False

    def whole(self, source: Source) -> Part:
        """Return all of the file as one part."""
        return Part(end=source.bytes)

    def cut(self, source: Source, target: int) -> list[Part]:
        """Cut behind the first comma of the outermost level after every multiple of `target`.

        Raises:
            DataError: the array is cut off, or something follows it.
        """
        if source.compression:
            return [self.whole(source)]
        with open(source.file, "rb") as file:
            stream = blocks(file, 0, source.bytes, _NoDigest())
            return parts_at(spaced_out(item_starts(stream, source.path), target), source.bytes, target)

    def read(self, source: Source, part: Part, progress: Progress, max_record_bytes: int) -> Iterator[RawBatch]:
        """Yield the items of a part, some megabytes at a time."""
        if source.compression:
            yield from _batches(items(compressed_blocks(source), ENDLESS, source.path, max_record_bytes))
            return
        progress.hashed = True
        with open(source.file, "rb") as file:
            stream = blocks(file, part.begin, part.end, progress.digest)
            yield from _batches(items(stream, part.end, source.path, max_record_bytes))


class JsonObject(WholeFile):
    """One record alone, written over several lines."""

    name = "object"
    suffixes: tuple[str, ...] = (".json",)
    compressible = True

    def matches(self, head: FileHead) -> bool:
        """Return whether the whole file is one JSON object that does not end with the first line."""
        return head.text[:1] == "{" and not head.first_line_is_a_record and head.value is not None

    def read(self, source: Source, part: Part, progress: Progress, max_record_bytes: int) -> Iterator[RawBatch]:
        """Yield the record."""
        with open_contents(source) as stream:
            text = bytes(stream.read(HEAD)).removeprefix(BOM)  # `matches` saw that this is all of the file
        yield from within(JsonBatch.of_texts(0, [text]), max_record_bytes)


class _NoDigest:
    """Takes bytes in and forgets them."""

    def update(self, data: object, /) -> None:
        """Do nothing."""


def _batches(found: Iterable[bytes | RecordError]) -> Iterator[RawBatch]:
    """Put items together until they are some megabytes; an item that is too large is a batch of its own."""
    batch: list[bytes] = []
    number = held = 0
    for item in found:
        if isinstance(item, bytes):
            batch.append(item)
            held += len(item)
        if held >= streams.BLOCK * streams.BATCH or not isinstance(item, bytes):
            yield JsonBatch.of_texts(number, batch)
            number += len(batch)
            batch, held = [], 0
        if not isinstance(item, bytes):
            yield RawBatch(number, [item])
            number += 1
    yield JsonBatch.of_texts(number, batch)


class Scanner:
    """Follows the brackets, quotes and commas of one array over its blocks.

    Args:
        path: the file, for messages.
        inside: whether the first byte lies within the array already, at the beginning of an item.

    Attributes:
        depth: how many brackets are open.
        done: whether the closing bracket of the array was met.
    """

    def __init__(self, path: str, *, inside: bool = False) -> None:
        self.path = path
        self.depth = 1 if inside else 0
        self.done = False
        self._in_string = False
        self._escaped = False

    def feed(self, block: bytes) -> NDArray[np.int64]:
        """Return where items end in the next block: int64[k], commas of the outermost level and the closing bracket.

        For the block `[1, [2, 3]]` these are the offsets 2 and 10: the comma within the inner array is at depth 2.

        Raises:
            DataError: brackets that do not match, or text after the array.
        """
        data = np.frombuffer(block, dtype=np.uint8)
        quotes = np.flatnonzero(data == QUOTE)
        quotes = quotes[~self._escapes(data, quotes)]
        braces = data | LOWER
        places = np.flatnonzero((braces == OPEN) | (braces == CLOSE) | (data == COMMA))
        outside = (np.searchsorted(quotes, places) + self._in_string) % 2 == 0
        places = places[outside]
        self._in_string = bool((len(quotes) + self._in_string) % 2)
        depth = self.depth + np.cumsum(STEP[data[places]], dtype=np.int64)
        commas = places[(data[places] == COMMA) & (depth == 1)]
        closed = np.flatnonzero((depth == 0) & (STEP[data[places]] < 0))
        if len(closed) and not self.done and block[places[closed[0]]] != ord("]"):
            raise DataError(f"{self.path}: its array is closed by }} instead of ]; mend it")
        after = 0 if self.done else int(places[closed[0]]) + 1 if len(closed) else len(block)
        if block[after:].strip(SPACE):
            raise DataError(f"{self.path}: goes on after the end of its array; mend it, or convert it to JSONL")
        if len(places):
            self.depth = int(depth[-1])
        if not len(closed):
            return np.asarray(commas)
        self.done = True
        ends: NDArray[np.int64] = np.append(commas, places[closed[0]])
        return ends

    def _escapes(self, data: NDArray[np.uint8], quotes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which quotes are escaped: an odd number of backslashes stands directly before them.

        In `\\"` (one backslash) the quote is part of a text, in `\\\\"` (two) it ends one. A backslash at the end of
        the block may escape the first byte of the next one, which is remembered.
        """
        slashes = np.flatnonzero(data == BACKSLASH)
        carried, self._escaped = self._escaped, False
        after = (quotes == 0) & carried
        if not len(slashes):
            return np.asarray(after)
        first = np.append(True, np.diff(slashes) != 1)
        begin = slashes[np.maximum.accumulate(np.where(first, np.arange(len(slashes)), 0))]
        escaping = (slashes - begin) % 2 == 0
        if carried:
            escaping = np.where(begin == 0, ~escaping, escaping)
        escapes = np.zeros(len(data) + 1, dtype=np.bool_)
        escapes[slashes[escaping] + 1] = True
        self._escaped = bool(escapes[-1])
        out: NDArray[np.bool_] = escapes[quotes] | after
        return out


def item_starts(stream: Iterable[tuple[int, bytes]], path: str) -> Iterator[int]:
    """Yield the offsets directly behind the commas of the outermost level, where a part may begin.

    Raises:
        DataError: the array is cut off, or something follows it.
    """
    scanner = Scanner(path)
    number = 0
    for offset, block in stream:
        found = scanner.feed(block)
        yield from (offset + found[: len(found) - scanner.done] + 1).tolist()
        number += len(found)
    if not scanner.done:
        raise _cut_off(path, number)


def _cut_off(path: str, records: int) -> DataError:
    where = f"after record {records - 1}" if records else "in its first record"
    return DataError(f"{path}: the array ends in the middle, {where}; it was cut off")


def items(
    stream: Iterable[tuple[int, bytes]], end: int, path: str, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[bytes | RecordError]:
    """Yield the bytes of each item that begins before `end`, with the white space around it.

    Raises:
        DataError: the array is cut off, or something follows it.
    """
    scanner: Scanner | None = None
    pending: list[bytes] = []
    held = number = 0
    most = max_record_bytes + MARGIN
    for offset, whole in stream:
        block = whole[: end - offset]
        if scanner is None:
            scanner, opening = Scanner(path, inside=offset > 0), offset == 0
        begin = 0
        places = scanner.feed(block).tolist()
        for at, place in enumerate(places):
            held += place - begin
            item = b"".join((*pending, block[begin:place])) if held <= most else b""
            if opening:
                item, opening = item.removeprefix(BOM).lstrip(SPACE)[1:], False
            if held > most or len(item.strip(SPACE)) > max_record_bytes:
                yield too_large(max_record_bytes)
            elif item.strip(SPACE) or not (scanner.done and at == len(places) - 1):
                yield item
            pending, held, begin = [], 0, place + 1
            number += 1
        held += len(block) - begin
        if held > most:
            pending = []
        elif begin < len(block):
            pending.append(block[begin:])
        if offset + len(whole) >= end:
            break
    if scanner is None or not (scanner.done or not held):
        raise _cut_off(path, number)
