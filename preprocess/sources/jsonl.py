"""JSONL, a record per line: any range of bytes can be read by itself, a batch of whole lines at a time.

A line belongs to the range in which it begins, so ranges may be cut anywhere and every line is read once. The
last line of a range is read past its end; a range in the middle of one long line has none. Two ranges of 8 bytes
over three lines, {1}, {22} and {333}:

    bytes    {1}⏎{22}⏎{333}⏎
    [0, 8)   {1}⏎{22}          the second line begins at 4, and is read up to its end at 9
    [8, 15)         ⏎{333}⏎    goes on in the middle of a line, which is skipped

Lines end at a newline byte and nowhere else: U+2028 and U+0085 are ordinary characters within JSON texts. Blank
lines are no records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

from sft_shards.formats.errors import RecordError
from sft_shards.preprocess.sources.detect import FileHead
from sft_shards.preprocess.sources.partition import Part, parts_at
from sft_shards.preprocess.sources.raw_records import JsonBatch, RawBatch, too_large, within
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import (
    BATCH,
    BOM,
    ENDLESS,
    MARGIN,
    MAX_RECORD_BYTES,
    Digest,
    Progress,
    blocks,
    compressed_blocks,
)


class JsonLines:
    """A JSON text per line."""

    name = "jsonl"
    suffixes: tuple[str, ...] = (".jsonl", ".ndjson", ".json")
    compressible = True

    def matches(self, head: FileHead) -> bool:
        """Return whether the file begins like JSON. Files that are one JSON value are recognised before."""
        return head.text[:1] in ("[", "{", '"')

    def keeps_parts_when_appended(self, source: Source) -> bool:
        """Return True unless compressed: the cuts are multiples of the target."""
        return not source.compression

    def whole(self, source: Source) -> Part:
        """Return all of the file as one part."""
        return Part(end=source.bytes)

    def cut(self, source: Source, target: int) -> list[Part]:
        """Cut at every multiple of `target`, without looking into the file."""
        if source.compression:
            return [self.whole(source)]
        return parts_at(range(target, source.bytes, target), source.bytes, target)

    def read(self, source: Source, part: Part, progress: Progress, max_record_bytes: int) -> Iterator[RawBatch]:
        """Yield the lines of a part, some megabytes at a time."""
        number = 0
        for lines in self._lines(source, part, progress, max_record_bytes):
            if isinstance(lines, bytes):
                batch = JsonBatch.of_lines(number, lines)
                yield from within(batch, max_record_bytes)
                number += len(batch)
            else:
                yield RawBatch(number, [lines])
                number += 1

    def _lines(
        self, source: Source, part: Part, progress: Progress, max_record_bytes: int
    ) -> Iterator[bytes | RecordError]:
        if source.compression:
            yield from whole_lines(compressed_blocks(source, together=BATCH), ENDLESS, max_record_bytes)
            return
        progress.hashed = True
        with open(source.file, "rb") as file:
            for lines in lines_in_range(file, part.begin, part.end, progress.digest, max_record_bytes):
                progress.consumed = file.tell() - part.begin
                yield lines


def lines_in_range(
    file: IO[bytes], begin: int, end: int, digest: Digest, max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[bytes | RecordError]:
    """Yield the lines that begin in [begin, end) of an open file, many whole lines at a time.

    Args:
        digest: takes in the bytes of the range.

    Yields:
        Bytes that end with a newline (but for the last of the file), or a RecordError (`too_large`) in the place of
        a line that is far too long. A line between other lines may still be too long.
    """
    inside = False
    if begin:
        file.seek(begin - 1)
        inside = file.read(1) != b"\n"
    yield from whole_lines(blocks(file, begin, end, digest, together=BATCH), end, max_record_bytes, inside=inside)


def whole_lines(
    stream: Iterable[tuple[int, bytes]], end: int, max_record_bytes: int = MAX_RECORD_BYTES, *, inside: bool = False
) -> Iterator[bytes | RecordError]:
    """Yield the lines that begin before `end`, many whole lines at a time, as `lines_in_range` does.

    Args:
        stream: (offset, bytes), one after the other.
        inside: whether the stream begins in the middle of a line, which belongs to the range before.
    """
    pending: list[bytes] = []
    held = 0
    mark = b""
    for start, whole in stream:
        offset, block = start, whole
        if offset == 0:
            mark = BOM  # stands before the first line, and is no part of its text
        if inside:
            newline = block.find(b"\n")
            if newline < 0:
                if offset + len(block) >= end:
                    return
                continue
            block, offset, inside = block[newline + 1 :], offset + newline + 1, False
        left = end - offset
        if left <= 0 and not pending:
            return
        last = block.rfind(b"\n") if left >= len(block) else block.find(b"\n", max(left - 1, 0))
        if last >= 0:
            yield b"".join((*pending, block[: last + 1])).removeprefix(mark)
            mark = b""
            if left < len(block):
                return
            pending, held, block = [], 0, block[last + 1 :]
        if block:
            pending.append(block)
            held += len(block)
        if held > max_record_bytes + MARGIN:
            yield too_large(max_record_bytes)
            pending, held, inside = [], 0, True
    if pending:
        yield b"".join(pending).removeprefix(mark)
