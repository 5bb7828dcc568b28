"""What a record raises that nobody foresaw costs that record alone, and is reported as a bug at the end of the job.

The stages reject what they know to be wrong with a record (`RecordError`). Anything else is a bug of ours, of a library
or of a plug-in, and without this one place it would end a job of a million records without saying at which. The batch
that raised is halved until the record is alone, which is rejected with the reason `internal_error` and the place in the
code; the others go on. It costs nothing where nothing is raised.

Errors that say nothing of the record pass: the job's own (`DataError`, `UsageError`), those of the machine, and a
`MemoryError`, since what a job writes must not depend on how much memory there was. The size of a record is bounded
before it comes here (`--max-record-bytes`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from traceback import FrameSummary, extract_tb
from types import TracebackType

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.preprocess.pipeline.batch import Batch, Reject
from sft_shards.preprocess.sources import RawBatch

INTERNAL_ERROR = "internal_error"
"""The reason of a record that raised something unforeseen."""
NOT_OF_A_RECORD = (DataError, UsageError, MemoryError, OSError, ImportError)
"""What a record cannot be blamed for."""
PACKAGE = Path(__file__).parents[2]
"""The folder of this package; the paths of its files are given from there on."""


def contain(raw: RawBatch, make: Callable[[RawBatch], Batch]) -> Batch:
    """Return what `make` makes of consecutive records, without those at which it raises something unforeseen.

    Args:
        make: must give the same for a record, whichever records are with it.

    Raises:
        DataError, UsageError, MemoryError, OSError, ImportError, KeyboardInterrupt: as `make` does.
    """
    try:
        return make(raw)
    except BaseException as error:
        if not is_unforeseen(error):
            raise
        if len(raw) <= 1:
            return Batch.of_rejects([Reject.of(raw.first, internal_error(error))])
    half = len(raw) // 2
    return Batch.merge([contain(raw.part(0, half), make), contain(raw.part(half, len(raw)), make)])


def is_unforeseen(error: BaseException) -> bool:
    """Return whether an error may be a record's fault, and no stage has a reason for it.

    A panic in a library written in Rust arrives as a BaseException of its own.
    """
    if isinstance(error, Exception):
        return not isinstance(error, NOT_OF_A_RECORD)
    return type(error).__name__ == "PanicException"


def internal_error(error: BaseException) -> RecordError:
    """Return the reject for an unforeseen error: its type, where it was raised, and a fingerprint of both.

    The error's own words are left out, since they may differ between two runs (the address of an object, say).
    """
    place = _place(type(error), error.__traceback__)
    digest = hashlib.sha256(f"{type(error).__name__} {place}".encode()).hexdigest()[:8]
    return RecordError("internal_error", f"{type(error).__name__} at {place} [{digest}]")


def _place(kind: type[BaseException], trace: TracebackType | None) -> str:
    """Return the file and line of the innermost frame of ours; of a recursion without end, of its first repetition.

    Where the stack ends depends on the caller, and with it the innermost frame of such a recursion.
    """
    frames = extract_tb(trace)[1:]  # the first is `contain`
    if issubclass(kind, RecursionError):
        seen: set[tuple[str, int | None]] = set()
        for frame in frames:
            if (frame.filename, frame.lineno) in seen:
                return _spelled(frame)
            seen.add((frame.filename, frame.lineno))
    ours = [frame for frame in frames if PACKAGE in Path(frame.filename).parents] or list(frames[-1:])
    return _spelled(ours[-1]) if ours else "an unknown place"


def _spelled(frame: FrameSummary) -> str:
    """Return a frame's file and line, the file without the folder that it is installed in."""
    path = Path(frame.filename)
    for root in (PACKAGE, *map(Path, sorted(sys.path, key=len, reverse=True))):
        if root.is_absolute() and root in path.parents:
            return f"{path.relative_to(root).as_posix()}:{frame.lineno}"
    return f"{path.name}:{frame.lineno}"
