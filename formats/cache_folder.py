"""The folder where commands keep what they can make again, and which of its files may be believed.

Whoever can write a cache entry decides what a job makes of it. So one rule holds for all of them (`is_trusted`): an
entry is believed where nobody but this user or root can have written it. root is trusted because it could change this
program as well, and so that an administrator can fill a cache for all. Tokenizers are files that `read_private` reads;
pack plans, which the ranks of several nodes share, are folders (`trainer.data.cache`).
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Return `$SFT_SHARDS_CACHE`, or `~/.cache/sft-shards` if it is not set."""
    return Path(os.environ.get("SFT_SHARDS_CACHE") or Path.home() / ".cache" / "sft-shards")


def make_private(folder: Path) -> None:
    """Make a folder that only this user can write, and the folders above it. One that exists stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)


def read_private(path: Path) -> bytes | None:
    """Return the content of a file that only this user or root can have written; None for any other, and for none.

    The same must be true of the folder that it lies in.
    """
    try:
        if not _is_trusted(os.lstat(path.parent), path.parent, stat.S_ISDIR):
            return None
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(handle, "rb") as file:
        try:
            return file.read() if _is_trusted(os.fstat(handle), path.parent, stat.S_ISREG) else None
        except OSError:
            return None


def is_trusted(state: os.stat_result, folder: Path) -> bool:
    """Return whether only this user or root can have written a file or folder.

    A file system may give what root writes to another user (NFS with root_squash), so the owner of a new file counts.

    Args:
        state: of the file or folder.
        folder: where it lies.
    """
    if state.st_mode & OTHERS:
        return False
    if state.st_uid in (0, os.geteuid()):
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return state.st_uid == os.fstat(file.fileno()).st_uid
    except OSError:
        return False


def _is_trusted(state: os.stat_result, folder: Path, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(state.st_mode) and is_trusted(state, folder)
