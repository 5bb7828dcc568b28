"""Files as blocks of bytes: plain or compressed, whole or from one byte on, hashed on the way.

Compressed files are opened by pyarrow, which reads several members one after the other and, unlike other readers
of Zstandard, says so when a file was cut off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO, Any

from sft_shards.preprocess.sources.source import Source

BLOCK = 1 << 20
"""Bytes read at a time; a scan is fastest over what fits into a core's cache."""
BATCH = 4
"""Blocks of which a batch of records is made: what is done once for a batch wants it large."""
BOM = b"\xef\xbb\xbf"
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def compression_of(head: bytes) -> str:
    """`gzip`, `zstd` or "" by a file's first bytes."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def open_compressed(path: str, compression: str) -> Any:
    """The contents of a compressed file as a readable stream; OSError where it is cut off or damaged."""
    import pyarrow as pa

    return pa.input_stream(path, compression=compression)


def read_head(path: str, compression: str, size: int) -> bytes:
    """The first bytes of a file's contents."""
    if not compression:
        with open(path, "rb") as file:
            return file.read(size)
    with open_compressed(path, compression) as stream:
        return bytes(stream.read(size))


def blocks(file: IO[bytes], begin: int, end: int, digest: Any, *, together: int = 1) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) from `begin` to the end of the file, several blocks together; `digest` takes what lies in
    [begin, end)."""
    file.seek(begin)
    offset = begin
    while block := file.read(BLOCK * together):
        digest.update(block if offset + len(block) <= end else memoryview(block)[: max(end - offset, 0)])
        yield offset, block
        offset += len(block)


def compressed_blocks(source: Source, *, together: int = 1) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of a compressed file's contents, several blocks together."""
    offset = 0
    with open_compressed(source.file, source.compression) as stream:
        while block := stream.read(BLOCK * together):
            yield offset, bytes(block)
            offset += len(block)


def hash_range(path: str, begin: int, end: int) -> str:
    """Hex SHA-256 of the bytes [begin, end) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(begin)
        while begin < end and (piece := file.read(min(1 << 20, end - begin))):
            digest.update(piece)
            begin += len(piece)
    return digest.hexdigest()
