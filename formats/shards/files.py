"""Files that are either whole or not there: write under a temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 20


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing; on success it becomes `path`, on any error it is removed.

    The temporary name is like no other, so that two attempts at once, on two machines too, do not write into one
    file. It lies in `scratch` (a folder of the same file system) where one is given, else beside `path`: a process
    that is killed leaves it there.
    """
    final = Path(path)
    temporary = (scratch or final.parent) / f".{final.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
        fsync_directory(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def json_bytes(value: Any) -> bytes:
    """A value as UTF-8 JSON, keys in the order given, an indent of one space, one newline at the end."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def write_json(path: str | os.PathLike[str], value: Any, *, scratch: Path | None = None) -> None:
    """Write a value as `json_bytes`, atomically."""
    with atomic_write(path, scratch=scratch) as file:
        file.write(json_bytes(value))
