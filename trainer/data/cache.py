"""Arrays that one process computes and all read: memory-mapped, keyed by content, whole or not there.

The first process that wants an entry takes a lock file, computes, and renames a finished folder into place; the
others wait for that folder. There is no barrier, so nothing times out while millions of rows are planned, ranks of
several nodes share an entry when they share the folder, and each node makes its own when they do not. A lock whose
owner is gone (its process ended, or its time stamp stood still for `STALE` seconds of the waiter's clock) is taken
over. The lock only saves work: entries follow from their key alone, so two builders at once, as can happen where a
network file system shows things late, write the same bytes, and one of them wins the rename.

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
"""Seconds between signs of life of a builder."""
STALE = 90.0
"""Seconds without one after which a builder on another machine is given up; NFS may show a time stamp 60 s late."""

Arrays = dict[str, NDArray[Any]]


def default_root() -> Path:
    """`$SFT_SHARDS_CACHE`, else `~/.cache/sft-shards`."""
    return Path(os.environ.get("SFT_SHARDS_CACHE") or Path.home() / ".cache" / "sft-shards")


class Cache:
    """A folder of entries.

    >>> Cache(Path("cache")).arrays("plan", {"seq_length": 8}, lambda: {"a": np.zeros(3)})  # doctest: +SKIP
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def arrays(self, kind: str, key: Mapping[str, Any], build: Callable[[], Arrays]) -> Arrays:
        """The arrays of an entry, read-only; built here when nobody has built them.

        Args:
            kind: first word of the entry's name, for people.
            key: everything that the result depends on, as JSON values.
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
                if not _take(lock):
                    _wait(lock, final)
                    continue
                with _beating(lock):
                    if _read(final) is None:
                        _write(final, key, build())
        except OSError as error:
            raise DataError(
                f"{error.filename or self.root}: the cache cannot be used ({error.strerror or error}); name another "
                "folder with --cache-dir"
            ) from None
        return found


def _read(final: Path) -> Arrays | None:
    """The entry, or None where there is none."""
    try:
        shapes = json.loads((final / "entry.json").read_text("utf-8"))["arrays"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise _damaged(final) from None
    found: Arrays = {}
    for name, (dtype, *shape) in shapes.items():
        if 0 in shape:  # nothing cannot be mapped
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
    return DataError(f"{final}: this cache entry is damaged; delete the folder, it is made again")


def _write(final: Path, key: Mapping[str, Any], arrays: Arrays) -> None:
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


def _take(lock: Path) -> bool:
    """Make the lock file; False where it is there already."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
    return True


@contextmanager
def _beating(lock: Path) -> Iterator[None]:
    """Touch the lock now and then, and remove it at the end."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            try:
                os.utime(lock)
            except OSError:
                return  # taken over: both build the same

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        lock.unlink(missing_ok=True)


def _wait(lock: Path, final: Path) -> None:
    """Return when the entry may be there, or when the lock is free or was taken from an owner who is gone."""
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
    """Whether the owner ran on this machine and does not run any more."""
    if len(owner) != 2 or owner[0] != socket.gethostname():
        return False
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False
