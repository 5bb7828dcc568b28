"""Taking an output folder for a job: it is made or found fit, locked, and left as it was where the call was wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards.files import fsync_directory
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.output import OutputState, look, writing
from sft_shards.preprocess.tasks.ownership import check_ours
from sft_shards.preprocess.tasks.replacement import check_replaceable, recover, settle, working_folder
from sft_shards.preprocess.tasks.workdir import LOCK, WORK


@contextmanager
def prepared(output: Path, *, overwrite: bool, patience: float = 0.0) -> Iterator[Path]:
    """Make the folder that a job works in, or take the one that is there, hold its lock, and give its path.

    That is the output folder, or the one beside it where a complete directory is to be overwritten. On the way out, a
    `.work` that holds nothing but the lock is removed, and so is an empty folder that was not there before.

    Args:
        overwrite: whether a complete shard directory may be replaced, and an unfinished job removed.
        patience: seconds to wait for another process that holds the lock.

    Raises:
        UsageError: the folder holds a complete shard directory, or something that is none.
        DataError: it cannot be written, or another job works there.
    """
    recover(output)
    if overwrite and look(output) is OutputState.PUBLISHED:
        with writing(output), job_lock(output):
            settle(output)
    check_fit(output, overwrite=overwrite)
    folder = working_folder(output, overwrite=overwrite)
    existed = folder.exists()
    with writing(output):
        _make(folder)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    try:
        with writing(output), job_lock(folder, patience=patience, becomes=output):
            if overwrite:
                check_ours(folder)
            yield folder
    finally:
        with suppress(OSError):
            if [entry.name for entry in (folder / WORK).iterdir()] == [LOCK]:
                shutil.rmtree(folder / WORK)
            if not existed:
                folder.rmdir()  # removes an empty folder only


def _make(folder: Path) -> None:
    """Make a folder with those above it that are not there, and make their names durable."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        with suppress(PermissionError):  # a folder above that may not be read
            fsync_directory(folder.parent)


def check_fit(output: Path, *, overwrite: bool) -> None:
    """Check that a job may write to a folder, without writing to it.

    Raises:
        UsageError: the folder holds a complete shard directory, or something that is none.
        DataError: it cannot be read.
    """
    state = look(output)
    if state is OutputState.FILE:
        raise UsageError(f"{output}: is a file; choose another --output")
    if state is OutputState.FOREIGN:
        raise UsageError(f"{output}: exists and is not a shard directory; choose another --output")
    if state.is_complete and not overwrite:
        raise UsageError(
            f"{output}: already holds a complete shard directory; choose another --output, or give --overwrite"
        )
    with writing(output):
        if state is OutputState.COMPLETE:
            check_replaceable(output)
        elif state is OutputState.PUBLISHED:
            check_ours(output)
