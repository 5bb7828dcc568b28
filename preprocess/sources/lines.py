"""The lines of a byte range, in chunks of whole lines: the seam where a faster parser gets its input.

A line belongs to the range in which it begins, so ranges may be cut anywhere and every line is read once. The
last line of a range is read past its end; a range in the middle of one long line has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any

from sft_shards.formats.errors import RecordError
from sft_shards.preprocess.sources.streams import BATCH, BOM, blocks

MAX_RECORD = 1 << 26
"""Bytes that one record may have: a longer one is left out, so that memory stays bounded."""


def range_chunks(file: IO[bytes], begin: int, end: int, digest: Any) -> Iterator[bytes | RecordError]:
    """Chunks of whole lines that begin in [begin, end) of an open file; `digest` takes the bytes of the range.

    Yields:
        Bytes that end with a newline (but for the last of the file), or a RecordError for a line that is too long.
    """
    inside = False
    if begin:
        file.seek(begin - 1)
        inside = file.read(1) != b"\n"
    yield from line_chunks(blocks(file, begin, end, digest, together=BATCH), end, inside=inside)


def line_chunks(
    stream: Iterable[tuple[int, bytes]], end: int, *, inside: bool = False
) -> Iterator[bytes | RecordError]:
    """Chunks of the whole lines that begin before `end`.

    Args:
        stream: (offset, bytes), one after the other.
        inside: whether the stream begins in the middle of a line, which is somebody else's.
    """
    pending: list[bytes] = []
    held = 0
    mark = b""
    for start, whole in stream:
        offset, block = start, whole
        if offset == 0:
            mark = BOM  # it belongs to the first line, and is no part of its text
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
        if held > MAX_RECORD:
            yield RecordError("too_large", f"longer than {MAX_RECORD:,} bytes")
            pending, held, inside = [], 0, True
    if pending:
        yield b"".join(pending).removeprefix(mark)
