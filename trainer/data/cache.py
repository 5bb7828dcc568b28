"""Cached arrays: one process computes an entry, all processes memory-map it.

The first process that needs an entry takes a lock file, computes the arrays, and renames a finished folder into
place; the others wait for that folder. There is no barrier, so nothing times out while millions of rows are planned.
Ranks of several nodes share an entry if they share the folder; otherwise each node makes its own.

A lock is taken over if its owner is gone: the owner's process on this machine ended, or its time stamp did not change
for `STALE` seconds of the waiter's clock. The lock only saves work. An entry depends on its key alone, so two builders
at once, as can happen on a network file system that shows changes late, write the same bytes, and one of them wins the
rename.

Entries are never deleted here; the folder may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.files import fsync_directory, write_json

BEAT = 2.0
"""Seconds between two touches of the lock by its owner."""
STALE = 90.0
"""Seconds without a touch after which a lock is taken over; NFS may show a time stamp 60 s late."""

Arrays = dict[str, NDArray[Any]]
"""Arrays of an entry by name, each of its own dtype and shape."""
Key = Mapping[str, str | int | bool | None]
"""Everything that an entry depends on."""


def default_root() -> Path:
    """Return `$SFT_SHARDS_CACHE`, or `~/.cache/sft-shards` if it is not set."""
    return Path(os.environ.get("SFT_SHARDS_CACHE") or Path.home() / ".cache" / "sft-shards")


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
            DataError: the folder cannot be written, or an entry in it is damaged.
        """
        text = json.dumps(key, sort_keys=True)
        name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
        final, lock = self.root / name, self.root / f".{name}.lock"
        try:
            while (found := _read(final)) is None:
                self.root.mkdir(parents=True, exist_ok=True)
                if not _acquire(lock):
                    _wait(lock, final)
                    continue
                with _touching(lock):
                    if _read(final) is None:
                        _write(final, key, build())
        except OSError as error:
            raise DataError(
                f"{error.filename or self.root}: the cache cannot be used ({error.strerror or error}); name another "
                "folder with --cache-dir"
            ) from None
        return found


def _read(final: Path) -> Arrays | None:
    """Return the arrays of a finished entry, or None if there is none; DataError if it is damaged."""
    try:
        shapes = json.loads((final / "entry.json").read_text("utf-8"))["arrays"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise _damaged(final) from None
    found: Arrays = {}
    for name, (dtype, *shape) in shapes.items():
        if 0 in shape:  # an empty file cannot be mapped
            found[name] = np.zeros(shape, dtype=dtype)
            continue
        try:
            found[name] = np.asarray(np.load(final / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        except (ValueError, EOFError, FileNotFoundError):
            raise _damaged(final) from None
        if found[name].dtype.str != dtype or list(found[name].shape) != shape:
            raise _damaged(final)
    return found


def _damaged(final: Path) -> DataError:
    return DataError(f"{final}: this cache entry is damaged; delete the folder, and it is made again")


def _write(final: Path, key: Key, arrays: Arrays) -> None:
    temporary = final.with_name(f".{final.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, array in arrays.items():
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        shapes = {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}
        write_json(temporary / "entry.json", {"key": key, "arrays": shapes})
        try:
            os.rename(temporary, final)
        except OSError:
            if not (final / "entry.json").exists():
                raise
        else:
            fsync_directory(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def _wait(lock: Path, final: Path) -> None:
    """Wait until the entry is there or the lock is free; remove the lock if its owner is gone."""
    seen, since = None, time.monotonic()
    while not (final / "entry.json").exists():
        try:
            stamp = lock.stat().st_mtime_ns
            owner = lock.read_text().split()
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
