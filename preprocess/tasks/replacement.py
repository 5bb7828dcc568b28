"""`--overwrite`: a new directory is built beside the old one, and takes its place when it is complete.

    DIR               the old directory, untouched until the new one is complete
    .DIR.overwrite    the new one while it is built, which the same call finds again
    .DIR.replaced     the old one while it is removed

The two change places in one step (renameat2 with RENAME_EXCHANGE), and only then is the old one removed. The new one
keeps its `.work` until that is done, so a job that was killed in between is known by it. Where the kernel or the file
system cannot exchange, the old one is moved away and the new one takes its name; a job that was killed between these
two steps left no DIR, and whatever command comes next takes the second step (`recover`).

Where there is no complete directory, there is nothing to keep: the job works in DIR itself, and starts over there if an
unfinished job of another plan is in its way. The price of all this is the disk, which has to hold both directories.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import manifest
from sft_shards.formats.shards.files import fsync_directory
from sft_shards.preprocess.sources.stdin import SPOOLED
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.output import OutputState, look, writing
from sft_shards.preprocess.tasks.ownership import check_ours
from sft_shards.preprocess.tasks.workdir import LOCK, PLAN, TASKS, WORK, clear

RENAME_EXCHANGE = 2
AT_FDCWD = -100
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What kernels, file systems and sandboxes say that know no exchange."""


def working_folder(output: Path, *, overwrite: bool = False) -> Path:
    """Return the folder in which tasks work: the one beside a complete directory that is to be overwritten, or that.

    Args:
        overwrite: whether the job overwrites; without it, whether a job that does was planned is seen on disk.
    """
    beside = _building(output)
    planned = look(beside).has_work and (beside / WORK / PLAN).is_file()
    return beside if look(output).is_complete and (overwrite or planned) else output


def check_replaceable(output: Path) -> None:
    """Check that a complete directory can be replaced: it is ours, and nothing is in the way.

    Raises:
        UsageError: it is not, or something is.
    """
    check_ours(output)
    if os.path.ismount(output):
        raise UsageError(f"{output}: is a mount point, which no folder can replace; name a folder below it")
    if look(_building(output)) in (OutputState.FILE, OutputState.FOREIGN, OutputState.COMPLETE):
        raise UsageError(f"{_building(output)}: is in the way of --overwrite; move it away")
    if look(_replaced(output)) is not OutputState.ABSENT:
        raise UsageError(f"{_replaced(output)}: is in the way of --overwrite; move it away")


def publish(folder: Path, output: Path) -> None:
    """Give a complete directory, whose lock is held, its name; remove the one that it replaces, and `.work`.

    Raises:
        UsageError: somebody has put a file into the directory to replace.
    """
    if folder != output:
        check_replaceable(output)
        final, replaced = _real(output), _replaced(output)
        if _exchange(folder, final):
            os.rename(folder, replaced)
        else:
            os.rename(final, replaced)
            os.rename(folder, final)
        fsync_directory(final.parent)
    _clean(output)


def settle(output: Path) -> None:
    """Remove what a job left that was killed after its directory got its name. The caller holds the lock.

    Raises:
        UsageError: there is something that no job wrote.
    """
    check_ours(output)
    _clean(output)


def _clean(output: Path) -> None:
    building, replaced = _building(output), _replaced(output)
    if look(building) is OutputState.COMPLETE:  # exchanged; a new one has `.work`
        os.rename(building, replaced)
    if replaced.is_dir():
        check_ours(replaced)
        (replaced / manifest.NAME).unlink(missing_ok=True)
        shutil.rmtree(replaced)
    clear(output)


def recover(output: Path) -> None:
    """Finish a replacement in two steps that was killed between them.

    Raises:
        DataError: another process is taking the second step.
    """
    building, replaced = _building(output), _replaced(output)
    if look(output) is not OutputState.ABSENT or not look(replaced).is_complete:
        return
    with writing(output):
        if not look(building).is_complete:
            os.rename(replaced, _real(output))
            return
        with job_lock(building, becomes=output):
            os.rename(building, _real(output))
            fsync_directory(_real(output).parent)
            _clean(output)


def start_over(folder: Path) -> None:
    """Remove what another unfinished job has left in a folder, all but the lock and standard input.

    Finished tasks go first, in one step: a job that is killed here leaves none that the next plan would take for its
    own.
    """
    check_ours(folder)
    (folder / manifest.NAME).unlink(missing_ok=True)
    tasks = folder / WORK / TASKS
    if tasks.is_dir():
        discarded = folder / WORK / f"attempt-discarded-{os.urandom(6).hex()}"
        discarded.mkdir()
        os.rename(tasks, discarded / TASKS)
    for entry in folder.iterdir():
        if entry.name == WORK:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    clear(folder, keep=(LOCK, SPOOLED))


def _real(output: Path) -> Path:
    """The folder itself, where `output` is a link to it."""
    return Path(os.path.realpath(output))


def _building(output: Path) -> Path:
    real = _real(output)
    return real.parent / f".{real.name}.overwrite"


def _replaced(output: Path) -> Path:
    real = _real(output)
    return real.parent / f".{real.name}.replaced"


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step, and return whether that can be done here."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
