"""Cached arrays: one process computes an entry, all processes memory-map it.

The first process that needs an entry takes a lock file, computes the arrays, and renames a finished folder into
place; the others wait for that folder. There is no barrier, so nothing times out while millions of rows are planned.
Ranks of several nodes share an entry if they share the folder; otherwise each node makes its own.

A lock is taken over if its owner is gone: the owner's process on this machine ended, or its time stamp did not change
for `STALE` seconds of the waiter's clock. The lock only saves work. An entry depends on its key alone, so two builders
at once, as can happen on a network file system that shows changes late, write the same bytes, and one of them wins the
rename.

An entry decides what is trained on, so it is checked each time that a process reads it: its key, the type, shape and
SHA-256 of every array, and its owner. One that is damaged is removed and made again. One that belongs to another user
(not to root) is left alone, and this user's own lies beside it. Whole entries are removed at no other time; the folder
may be removed whenever no run uses it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.contents import open_inside, read_inside
from sft_shards.formats.shards.files import fsync_directory, write_json
from sft_shards.formats.shards.schema import build as build_entry
from sft_shards.formats.shards.schema import parse

ENTRY = "entry.json"
BEAT = 2.0
"""Seconds between two touches of the lock by its owner."""
STALE = 90.0
"""Seconds without a touch after which a lock is taken over; NFS may show a time stamp 60 s late."""

Arrays = dict[str, NDArray[Any]]
"""Arrays of an entry by name, each of its own dtype and shape."""
Key = Mapping[str, str | int | bool | None]
"""Everything that an entry depends on."""


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """What `entry.json` says of an array."""

    dtype: str
    """numpy's `dtype.str`, such as "<u4"."""
    shape: tuple[int, ...]
    sha256: str
    """Hash of its items in C order."""

    @classmethod
    def of(cls, array: NDArray[Any]) -> ArrayInfo:
        """Describe an array."""
        flat = np.ascontiguousarray(array).reshape(-1)
        return cls(dtype=array.dtype.str, shape=array.shape, sha256=hashlib.sha256(flat.view(np.uint8)).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """`entry.json`, written last into an entry's folder."""

    key: Mapping[str, Any]
    arrays: dict[str, ArrayInfo]
    """By name; `NAME.npy` holds the array."""


class Cache:
    """A folder of entries, each a folder of `.npy` files and an `entry.json`.

    `Cache(folder).arrays("plan", {"seq_length": 8}, compute)` calls `compute` the first time and reads the files later.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def arrays(self, kind: str, key: Key, build: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of an entry, memory-mapped and read-only; build them if no process has.

        Args:
            kind: first word of the entry's folder name, for people.
            key: identifies the entry; its hash is the rest of the name.
            build: computes the arrays, in one process at a time.

        Raises:
            DataError: the folder cannot be written.
        """
        text = json.dumps(key, sort_keys=True)
        name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
        try:
            if not _is_own(self.root, self.root / name):
                name = f"{name}-{os.geteuid()}"
                if not _is_own(self.root, self.root / name):
                    raise DataError(
                        f"{self.root / name}: belongs to another user; name another folder with --cache-dir"
                    )
            final, lock = self.root / name, self.root / f".{name}.lock"
            while (found := _read(final, key)) is None:
                self.root.mkdir(parents=True, exist_ok=True)
                stamp = _stamp(final)
                if not _acquire(lock):
                    _wait(lock, final, stamp)
                    continue
                with _touching(lock):
                    if _read(final, key) is None:
                        _write(final, key, build())
        except OSError as error:
            raise DataError(
                f"{error.filename or self.root}: the cache cannot be used ({error.strerror or error}); name another "
                "folder with --cache-dir"
            ) from None
        return found


def _is_own(root: Path, path: Path) -> bool:
    """Return whether an entry is this user's or root's, or is not there.

    A file system may give what root writes to another user (NFS with root_squash), so the owner of a new file counts.
    """
    owner = _owner(path)
    if owner in (None, 0, os.geteuid()):
        return True
    with tempfile.TemporaryFile(dir=root) as file:
        return owner == os.fstat(file.fileno()).st_uid


def _owner(path: Path) -> int | None:
    """Return the user id of an entry's owner; None if there is no entry."""
    try:
        return path.lstat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(final: Path, key: Key) -> Arrays | None:
    """Return the arrays of a finished entry; None if there is none, or it is damaged."""
    try:
        entry = build_entry(Entry, parse(read_inside(final, ENTRY)))
        if dict(entry.key) != dict(key):
            return None
        return {name: _array(final, name, info) for name, info in entry.arrays.items()}
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):  # no entry, or one that is damaged
        return None


def _array(final: Path, name: str, info: ArrayInfo) -> NDArray[Any]:
    """Map an array; ValueError if it is not the one that was written."""
    if 0 in info.shape:  # an empty file cannot be mapped
        return np.zeros(info.shape, dtype=info.dtype)
    with open_inside(final, f"{name}.npy") as file:
        found = np.asarray(np.load(f"/dev/fd/{file.fileno()}", mmap_mode="r", allow_pickle=False))
    if ArrayInfo.of(found) != info:
        raise ValueError(f"{name}: not the array that was written")
    return found


def _stamp(final: Path) -> tuple[int, int] | None:
    """Return what tells an entry from one made later; None if there is none."""
    try:
        state = (final / ENTRY).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_ino, state.st_mtime_ns


def _write(final: Path, key: Key, arrays: Arrays) -> None:
    """Write an entry, in place of a damaged one."""
    temporary = final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, array in arrays.items():
            with open(temporary / f"{name}.npy", "xb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        entry = Entry(key=key, arrays={name: ArrayInfo.of(array) for name, array in arrays.items()})
        write_json(temporary / ENTRY, asdict(entry))
        _remove(final)
        try:
            os.rename(temporary, final)
        except OSError:
            if _read(final, key) is None:  # no other process was faster
                raise
        else:
            fsync_directory(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(final: Path) -> None:
    """Remove a damaged entry, or whatever else has its name: first by a rename, so that nobody reads half of it."""
    aside = final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}.old")
    try:
        os.rename(final, aside)
    except FileNotFoundError:
        return
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()


def _acquire(lock: Path) -> bool:
    """Create the lock file; return False if it exists already."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
    return True


@contextmanager
def _touching(lock: Path) -> Iterator[None]:
    """Touch the lock every `BEAT` seconds, and remove it at the end."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            try:
                os.utime(lock)
            except OSError:
                return  # another process took it over and builds the same entry

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        lock.unlink(missing_ok=True)


def _wait(lock: Path, final: Path, before: tuple[int, int] | None) -> None:
    """Wait until there is another entry than before or the lock is free; remove the lock if its owner is gone.

    Args:
        before: what `_stamp` gave of the entry that is missing or damaged.
    """
    seen, since = None, time.monotonic()
    while _stamp(final) in (None, before):
        try:
            stamp = lock.stat().st_mtime_ns
            owner = read_inside(lock.parent, lock.name).decode(errors="replace").split()
        except FileNotFoundError:
            return
        if stamp != seen:
            seen, since = stamp, time.monotonic()
        if time.monotonic() - since > STALE or _ended(owner):
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.1)


def _ended(owner: list[str]) -> bool:
    """Return whether the owner, host name and process id, ran on this machine and has ended."""
    if len(owner) != 2 or owner[0] != socket.gethostname():
        return False
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False
