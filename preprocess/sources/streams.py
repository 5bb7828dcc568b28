"""Files as blocks of bytes: compressed or not, from any byte on, hashed while they are read.

Compressed files are opened by pyarrow, which reads several members one after the other and, unlike other readers
of Zstandard, says so when a file was cut off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from sft_shards.preprocess.sources.source import Source

BLOCK = 1 << 20
"""Bytes read at a time: a scan is fastest over what fits into a core's cache."""
BATCH = 4
"""Blocks that make a batch of records: what is done once for a batch costs less the larger it is."""
MAX_RECORD_BYTES = 4 << 20
"""Default of `--max-record-bytes`: a larger record is left out (`too_large`), so that memory stays bounded."""
MARGIN = 1 << 10
"""Bytes of white space, or of an end of a line, that may stand around a record besides."""
ENDLESS = 1 << 62
"""An end that no file reaches."""
BOM = b"\xef\xbb\xbf"
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSED_SUFFIXES = (".gz", ".zst")


class Digest(Protocol):
    """Takes bytes in, such as a hash of `hashlib`."""

    def update(self, data: Any, /) -> None:
        """Take in some more bytes."""


@dataclass(kw_only=True)
class Progress:
    """How far a part is read, and the hash of its bytes. The kind of input that reads the part keeps it up to date."""

    digest: Any = field(default_factory=hashlib.sha256)
    """A SHA-256 for the part's bytes."""
    hashed: bool = False
    """Whether `digest` takes in all bytes of the part while they are read. Else they are read once more for it."""
    consumed: int = 0
    """Bytes of the file read so far; 0 where that cannot be told."""


def compression_of(head: bytes) -> str:
    """Return `gzip`, `zstd` or "" by a file's first bytes."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def without_compression_suffix(name: str) -> str:
    """Return a file's name in lower case, without `.gz` or `.zst`."""
    name = name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def open_compressed(path: str, compression: str) -> Any:
    """Open the contents of a compressed file as a readable stream.

    Raises:
        OSError: when opened or read, where the file is cut off or damaged.
    """
    import pyarrow as pa

    return pa.input_stream(path, compression=compression)


@contextmanager
def open_contents(source: Source) -> Iterator[IO[bytes]]:
    """Open the contents of a file, compressed or not."""
    with open_compressed(source.file, source.compression) if source.compression else open(source.file, "rb") as stream:
        yield stream


def read_head(path: str, compression: str, size: int) -> bytes:
    """Return the first `size` bytes of a file's contents."""
    with open_compressed(path, compression) if compression else open(path, "rb") as stream:
        return bytes(stream.read(size))


def blocks(file: IO[bytes], begin: int, end: int, digest: Digest, *, together: int = 1) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) from `begin` to the end of the file, `together` blocks at a time.

    Args:
        digest: takes in what lies in [begin, end).
    """
    file.seek(begin)
    offset = begin
    while block := file.read(BLOCK * together):
        digest.update(block if offset + len(block) <= end else memoryview(block)[: max(end - offset, 0)])
        yield offset, block
        offset += len(block)


def compressed_blocks(source: Source, *, together: int = 1) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of a compressed file's contents, `together` blocks at a time."""
    offset = 0
    with open_compressed(source.file, source.compression) as stream:
        while block := stream.read(BLOCK * together):
            yield offset, bytes(block)
            offset += len(block)


def hash_range(path: str, begin: int, end: int) -> str:
    """Return the hex SHA-256 of the bytes [begin, end) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(begin)
        while begin < end and (piece := file.read(min(BLOCK, end - begin))):
            digest.update(piece)
            begin += len(piece)
    return digest.hexdigest()
