"""`.work/merge.json`: which merge is under way in an output folder.

It is written before the first file and removed after the manifest, so a merge that was killed is told from another
one: the same call goes on, and any other call is refused. Directories are the same if their manifests are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards.contents import read_inside
from sft_shards.formats.shards.files import sha256_inside, write_json
from sft_shards.formats.shards.manifest import NAME as MANIFEST
from sft_shards.formats.shards.schema import SchemaError, build, parse
from sft_shards.preprocess.tasks.replacement import start_over
from sft_shards.preprocess.tasks.workdir import LOCK, WORK

NAME = "merge.json"


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """What decides the bytes of a merged directory."""

    directories: tuple[str, ...]
    """The directories to merge, absolute, in the order of their shards in the output."""
    manifests: tuple[str, ...]
    """SHA-256 of each one's manifest."""

    @classmethod
    def of(cls, ordered: Sequence[Path]) -> MergePlan:
        """Make the plan of a merge of complete directories."""
        return cls(
            directories=tuple(os.path.abspath(path) for path in ordered),
            manifests=tuple(sha256_inside(path, MANIFEST) or "" for path in ordered),
        )

    def claim(self, output: Path, *, overwrite: bool) -> None:
        """Write the plan into an output folder whose lock is held, or find the same one there.

        Args:
            overwrite: remove what another merge, or a job, has left there.

        Raises:
            UsageError: another merge was begun there, or another job.
            DataError: the plan there is damaged.
        """
        try:
            found = _read(output)
        except DataError:
            if not overwrite:
                raise
            found = None
        if overwrite and found != self:
            start_over(output)
            found = None
        if found is None and _is_empty(output):
            write_json(output / WORK / NAME, asdict(self), scratch=output / WORK)
        elif found is None:
            raise UsageError(f"{output}: holds an unfinished job; choose another --output, or give --overwrite")
        elif found != self:
            raise UsageError(
                f"{output}: holds an unfinished merge of {', '.join(found.directories)}, or those were made again "
                "since; choose another --output, or give --overwrite"
            )


def _read(output: Path) -> MergePlan | None:
    try:
        return build(MergePlan, parse(read_inside(output, f"{WORK}/{NAME}")))
    except FileNotFoundError:
        return None
    except SchemaError as error:
        raise DataError(f"{output / WORK / NAME}: damaged ({error}); start again with --overwrite") from None


def _is_empty(output: Path) -> bool:
    """Whether there is nothing but the lock, and what a merge leaves that was killed while it wrote its plan."""
    work = [entry.name for entry in (output / WORK).iterdir()]
    return all(name == LOCK or name.startswith(f".{NAME}.") for name in work) and [
        entry.name for entry in output.iterdir()
    ] == [WORK]
