"""Writing files that are either whole or not there: under a temporary name, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sft_shards.formats.shards.contents import open_inside

CHUNK = 1 << 20
NO_RIGHTS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""What file systems say that keep no rights."""


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hash a file: the hexadecimal SHA-256 of its bytes."""
    with open(path, "rb") as file:
        return sha256_of(file)


def sha256_of(file: IO[bytes]) -> str:
    """Hash an open file from where it stands to its end."""
    digest = hashlib.sha256()
    while piece := file.read(CHUNK):
        digest.update(piece)
    return digest.hexdigest()


def sha256_inside(directory: Path, name: str) -> str | None:
    """Hash a file of a directory; None if there is no entry of that name.

    Raises:
        DataError: an entry of that name, or one on the way, is no regular file or a link.
    """
    try:
        with open_inside(directory, name) as file:
            return sha256_of(file)
    except FileNotFoundError:
        return None


def sync(file: IO[bytes], *, read_only: bool = False) -> None:
    """Make what was written to a file durable.

    Args:
        read_only: take the rights to write to it away first, where the file system has such rights.
    """
    file.flush()
    if read_only:
        try:
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~0o222)
        except OSError as error:
            if error.errno not in NO_RIGHTS:
                raise
    os.fsync(file.fileno())


def sync_folders(folder: Path) -> None:
    """Make the names of all files below a folder durable; the files are not looked at."""
    for parent, _, _ in os.walk(folder, topdown=False):
        fsync_directory(parent)


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

    The temporary name is unique, so that two attempts at once, even on two machines, write two files. A process that is
    killed leaves its temporary file behind.

    Args:
        scratch: folder for the temporary file, on the same file system; None for the folder of `path`.
    """
    final = Path(path)
    temporary = (scratch or final.parent) / f".{final.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            sync(file)
        os.replace(temporary, final)
        fsync_directory(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def json_bytes(value: Any) -> bytes:
    """Encode a value as UTF-8 JSON: keys in the order given, an indent of one space, one newline at the end."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"


def write_json(path: str | os.PathLike[str], value: Any, *, scratch: Path | None = None) -> None:
    """Write the `json_bytes` of a value, atomically."""
    with atomic_write(path, scratch=scratch) as file:
        file.write(json_bytes(value))
