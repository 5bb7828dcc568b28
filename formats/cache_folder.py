"""The folder where commands keep what they can make again, and which of its files may be believed.

Whoever can write a cache entry decides what a job makes of it. So `read_private` reads an entry only where nobody but
this user can have written it: a regular file of this user, not writable by others, in a folder of which the same is
true. Cached pack plans, which the ranks of several users may share, have rules of their own (`trainer.data.cache`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sft_shards.formats.shards.files import atomic_write

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


def write_private(path: Path, content: bytes) -> None:
    """Write a file in one step, in a folder that only this user can write; `read_private` believes it.

    Raises:
        OSError: it cannot be written.
    """
    make_private(path.parent)
    with atomic_write(path) as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask: what others can write is not believed
        file.write(content)


def read_private(path: Path) -> bytes | None:
    """Return the content of a file that only this user can have written; None for any other, and for none."""
    try:
        if not _is_private(os.lstat(path.parent), stat.S_ISDIR):
            return None
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(handle, "rb") as file:
        try:
            return file.read() if _is_private(os.fstat(handle), stat.S_ISREG) else None
        except OSError:
            return None


def _is_private(state: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & OTHERS
