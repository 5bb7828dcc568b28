"""The items of a JSON array, found by its brackets, quotes and commas alone, a block at a time.

What lies between two commas of the outermost level is one record, and is parsed by itself: a record that is broken
inside costs itself and no other, and a task can begin at any such comma. numpy looks for the few characters that
matter, so that planning a large array takes little more than reading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources.lines import MAX_RECORD
from sft_shards.preprocess.sources.streams import BOM

QUOTE, BACKSLASH, COMMA, OPEN, CLOSE = b'"\\,{}'
STEP = np.zeros(256, dtype=np.int8)
STEP[list(b"[{")] = 1
STEP[list(b"]}")] = -1
LOWER = 0x20
"""The bit that makes [ and ] into { and }."""
SPACE = b" \t\r\n"


class Scanner:
    """Follows one array over its blocks.

    Args:
        path: the file, for messages.
        inside: whether the first byte lies within the array already, at the beginning of an item.
    """

    def __init__(self, path: str, *, inside: bool = False) -> None:
        self.path = path
        self.depth = 1 if inside else 0
        self.done = False
        """Whether the closing bracket was met."""
        self._in_string = False
        self._escaped = False

    def feed(self, block: bytes) -> NDArray[np.int64]:
        """Where in this block an item ends: commas of the outermost level, and the closing bracket.

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
        """Which quotes an odd run of backslashes stands before; remembers whether the next block begins escaped."""
        slashes = np.flatnonzero(data == BACKSLASH)
        carried, self._escaped = self._escaped, False
        after = (quotes == 0) & carried
        if not len(slashes):
            return np.asarray(after)
        first = np.append(True, np.diff(slashes) != 1)
        begin = slashes[np.maximum.accumulate(np.where(first, np.arange(len(slashes)), 0))]
        odd = (slashes - begin) % 2 == 0
        if carried:
            odd = np.where(begin == 0, ~odd, odd)
        escapes = np.zeros(len(data) + 1, dtype=np.bool_)
        escapes[slashes[odd] + 1] = True
        self._escaped = bool(escapes[-1])
        out: NDArray[np.bool_] = escapes[quotes] | after
        return out


def ends(stream: Iterable[tuple[int, bytes]], path: str) -> Iterator[int]:
    """Offsets just behind the commas of the outermost level: where a task may begin.

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
        raise DataError(f"{path}: the array ends in the middle, after record {number - 1}; it was cut off")


def items(stream: Iterable[tuple[int, bytes]], end: int, path: str) -> Iterator[bytes | RecordError]:
    """The bytes of each item that begins before `end`, with the white space around it.

    Raises:
        DataError: the array is cut off, or something follows it.
    """
    scanner: Scanner | None = None
    pending: list[bytes] = []
    held = number = 0
    for offset, whole in stream:
        block = whole[: end - offset]
        if scanner is None:
            scanner, opening = Scanner(path, inside=offset > 0), offset == 0
        begin = 0
        places = scanner.feed(block).tolist()
        for at, place in enumerate(places):
            held += place - begin
            item = b"".join((*pending, block[begin:place])) if held <= MAX_RECORD else b""
            if opening:
                item, opening = item.removeprefix(BOM).lstrip(SPACE)[1:], False
            if held > MAX_RECORD:
                yield RecordError("too_large", f"longer than {MAX_RECORD:,} bytes")
            elif item.strip(SPACE) or not (scanner.done and at == len(places) - 1):
                yield item
            pending, held, begin = [], 0, place + 1
            number += 1
        held += len(block) - begin
        if held > MAX_RECORD:
            pending = []
        elif begin < len(block):
            pending.append(block[begin:])
        if offset + len(whole) >= end:
            break
    if scanner is None or not (scanner.done or not held):
        raise DataError(f"{path}: the array ends in the middle, after record {number - 1}; it was cut off")
