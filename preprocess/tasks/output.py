"""The state of an output folder, and what is checked before a job writes there.

Every command asks `look` for the state, and nothing else looks for `manifest.json` or `.work` by itself. The state is
read from names alone, so it costs two or three calls of `stat`; whether the manifest is sound is for whoever reads it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import manifest
from sft_shards.preprocess.tasks.workdir import PLAN, WORK


class OutputState(enum.Enum):
    """What an output folder holds. A manifest is written last, so its presence means complete."""

    ABSENT = "nothing, or an empty folder"
    FILE = "a file"
    FOREIGN = "files that no job of ours wrote"
    BEGUN = "a job that has no plan yet, or a merge"
    PLANNED = "a job with a plan, of which any number of tasks is finished"
    PUBLISHED = "a complete shard directory, and what its job had not removed when it was stopped"
    COMPLETE = "a complete shard directory"

    @property
    def is_complete(self) -> bool:
        """Whether there is a manifest."""
        return self in (OutputState.PUBLISHED, OutputState.COMPLETE)

    @property
    def is_unfinished(self) -> bool:
        """Whether a job is under way, or was stopped."""
        return self in (OutputState.BEGUN, OutputState.PLANNED)

    @property
    def has_work(self) -> bool:
        """Whether there is a folder `.work`."""
        return self.is_unfinished or self is OutputState.PUBLISHED


def look(output: Path) -> OutputState:
    """Find out what state an output folder is in."""
    work = (output / WORK).is_dir()
    if (output / manifest.NAME).is_file():
        return OutputState.PUBLISHED if work else OutputState.COMPLETE
    if work:
        return OutputState.PLANNED if (output / WORK / PLAN).is_file() else OutputState.BEGUN
    if output.is_dir():
        return OutputState.FOREIGN if any(output.iterdir()) else OutputState.ABSENT
    return OutputState.FILE if output.exists() else OutputState.ABSENT


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Turn an error of the file system into a `DataError` that names the output folder and the remedy."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{output}: cannot be written ({error.strerror or error}); free the disk, mend its rights, or choose "
            "another --output, then run again"
        ) from None


def check_apart(output: Path, read: Iterable[str | Path]) -> None:
    """Refuse an output that is, holds, or lies inside something that is read; names of what is not there may be given.

    A folder of inputs would be read together with its output the next time, and --overwrite removes what the output
    holds.
    """
    target = output.resolve()
    for given in map(Path, read):
        source = given.resolve()
        if (source.is_relative_to(target) or target.is_relative_to(source)) and source.exists():
            raise UsageError(f"{output}: overlaps with {given}, which is read; choose another --output")
