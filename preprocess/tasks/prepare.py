"""Taking an output folder for a job: it is made or found fit, locked, and left as it was where the call was wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.output import OutputState, look, writing
from sft_shards.preprocess.tasks.workdir import LOCK, WORK


@contextmanager
def prepared(output: Path, *, overwrite: bool, patience: float = 0.0) -> Iterator[None]:
    """Make the output folder, or take the one that is there, and hold its lock.

    On the way out, a `.work` that holds nothing but the lock is removed, and so is an empty folder that was not there
    before.

    Args:
        overwrite: remove a complete shard directory, or an unfinished job, first.
        patience: seconds to wait for another process that holds the lock.

    Raises:
        UsageError: the folder holds a complete shard directory, or something that is none.
        DataError: it cannot be written, or another job works there.
    """
    existed = output.exists()
    _prepare(output, overwrite=overwrite)
    try:
        with writing(output), job_lock(output, patience=patience):
            yield
    finally:
        with suppress(OSError):
            if [entry.name for entry in (output / WORK).iterdir()] == [LOCK]:
                shutil.rmtree(output / WORK)
            if not existed:
                output.rmdir()  # removes an empty folder only


def _prepare(output: Path, *, overwrite: bool) -> None:
    state = look(output)
    if state is OutputState.FILE:
        raise UsageError(f"{output}: is a file; choose another --output")
    with writing(output):
        if state is OutputState.FOREIGN:
            raise UsageError(f"{output}: exists and is not a shard directory; choose another --output")
        if state.is_complete and not overwrite:
            raise UsageError(
                f"{output}: already holds a complete shard directory; choose another --output, or give --overwrite"
            )
        if overwrite and state.has_work:
            with job_lock(output):
                shutil.rmtree(output)
        elif overwrite and state.is_complete:
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(13, "Permission denied")
