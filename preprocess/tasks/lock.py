"""The lock of an output folder: one job at a time, on file systems that have locks.

The lock is the kernel's (`flock`). It ends with the process that holds it, however that ends, so no lock is ever
stale. `run`, `plan` and `finalize` hold it exclusively; the tasks of a cluster share it. On a file system without
locks the job runs unlocked: tasks are idempotent and every file appears by a rename, so two jobs at once cost time
and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.contents import folder_inside, handle_inside
from sft_shards.preprocess.tasks.output import look
from sft_shards.preprocess.tasks.workdir import LOCK, WORK

BUSY = (errno.EAGAIN, errno.EACCES)
_held: set[int] = set()
"""Handles of the locks that this process holds."""


def leave_locks() -> None:
    """Close the handles of locks that a process was forked with, so that they end with the process that took them."""
    while _held:
        os.close(_held.pop())


@contextlib.contextmanager
def job_lock(
    output: Path, *, shared: bool = False, patience: float = 0.0, becomes: Path | None = None
) -> Iterator[None]:
    """Hold the lock of an output folder. On the way out, remove the lock file if the directory is complete.

    Args:
        shared: share it with other tasks instead of holding it exclusively.
        patience: seconds to wait for another process that holds it.
        becomes: where the folder lies in the end (default: where it is).

    Raises:
        DataError: another job works in this folder, or `.work` or its lock is a link.
    """
    handle = _acquire(output, shared, time.monotonic() + patience)
    if handle is not None:
        _held.add(handle)
    try:
        if handle is not None and not shared:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        final = output if becomes is None else becomes
        published = look(final).is_complete
        if published:
            (final / WORK / LOCK).unlink(missing_ok=True)
        if handle is not None:
            _held.discard(handle)
            os.close(handle)
        if published:
            with contextlib.suppress(OSError):  # other tasks may still hold files here; the last one removes the folder
                (final / WORK).rmdir()


def _acquire(output: Path, shared: bool, until: float) -> int | None:
    path = output / WORK / LOCK
    while True:
        try:
            folder_inside(output, WORK)
            handle = handle_inside(output, f"{WORK}/{LOCK}", os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            if not output.is_dir():
                raise
            continue  # a process that published has removed the folder between the two calls
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            os.close(handle)
            if error.errno not in BUSY:
                return None
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise DataError(
                f"{output}: another job writes to this folder ({holder}); wait for it, or choose another --output"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.lstat(path)):
                return handle
        os.close(handle)  # another process removed the file in between: try again
