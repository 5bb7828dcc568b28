"""Whether a folder holds nothing but what jobs and merges write, so that it may be removed.

A complete directory is known by its manifest, which names every file. An unfinished one has none, and is known by the
names of its files. Folders without files are no loss and are not looked at.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import SPLITS, Manifest
from sft_shards.formats.shards.contents import entries
from sft_shards.formats.shards.manifest import NAME, REJECTS, SIGNATURE, TEMPLATE
from sft_shards.preprocess.tasks.workdir import WORK

UNFINISHED = re.compile(
    rf"""
      {re.escape(REJECTS)}
    | (tokenizer|{TEMPLATE})/[^/]+
    | ({"|".join(SPLITS)}) / ((tokens|loss_mask)/[0-9]+\.(bin|idx) | rows/[0-9]+\.parquet)
    | (.+/)? \.nfs[0-9a-f]+
    | {re.escape(WORK)} / (
        lock | run | refused | stdin | stdin-[^/]+ | rows-[^/]+ | \.[^/]+\.tmp | (plan|merge|extend)\.json
      | (tokenizer|slurm|ray)/[^/]+
      | (tasks/[0-9]+|attempt-[^/]+)/.+
      )
    """,
    re.VERBOSE | re.DOTALL,
)
"""Paths of the files of an unfinished job or merge. NFS keeps removed files that are open as `.nfs…`."""


def check_ours(directory: Path) -> None:
    """Check that a folder holds nothing but a shard directory, or an unfinished job or merge.

    Raises:
        UsageError: it holds a file that no job wrote, or a manifest that is not ours or damaged.
    """
    named: set[str] = set()
    if (directory / NAME).is_file():
        try:
            named = Manifest.read(directory).file_names() | {SIGNATURE}
        except DataError as error:
            raise UsageError(
                f"{str(error).partition('; ')[0]}; --overwrite removes complete shard directories only: "
                "choose another --output, or remove this one yourself"
            ) from None
    for path, mode in entries(directory):
        in_work = path.startswith(f"{WORK}/")
        known = path in named if named and not in_work else UNFINISHED.fullmatch(path) is not None
        if not stat.S_ISDIR(mode) and not (known and stat.S_ISREG(mode)):
            raise UsageError(
                f"{directory / path}: no job wrote this, and --overwrite would remove it; move it away, or choose "
                "another --output"
            )
