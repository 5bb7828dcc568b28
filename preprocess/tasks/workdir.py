"""`DIR/.work`: all that an unfinished job keeps on disk, and how it is read and removed.

    .work/plan.json           what the job is
    .work/lock                held by the process that works here (see `lock`)
    .work/tokenizer/          the tokenizer's files, so that tasks need neither the Hub nor the folder named, and
                              loaded.json: what transformers made of them, so that tasks need no transformers
    .work/stdin               standard input, where that is an input
    .work/extend.json         what tasks may take over from an older directory (`--extend`)
    .work/attempt-NNNNN-XXXX  a task while it runs
    .work/tasks/NNNNN/        a finished task: shards, rejects.jsonl, receipt.json
    .work/slurm/              the batch script and the logs of its array
    .work/ray/                what lost workers of Ray wrote to standard error

Everything unfinished lies below `.work`, temporary files included, so that a finished directory does not show how
often its job was killed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.shards import FileInfo
from sft_shards.formats.shards.files import write_json

WORK = ".work"
PLAN = "plan.json"
TASKS = "tasks"
LOCK = "lock"
RECEIPT = "receipt.json"


@dataclass(frozen=True, kw_only=True)
class StagedShard:
    """One shard in a task's folder: `SPLIT/tokens.{bin,idx}`, `SPLIT/loss_mask.{bin,idx}`, `SPLIT/rows.parquet`."""

    sequences: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest sequence."""
    files: dict[str, FileInfo]
    """By file name: tokens and loss mask. `rows.parquet` is written anew when the shard gets its number."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """`receipt.json`: what a finished task tells of itself, all that the manifest needs of it."""

    records: int
    """Records that were read."""
    sha256: str
    """Hash of the bytes of its part."""
    rejected: dict[str, int]
    """Records left out, by reason."""
    notes: dict[str, int]
    """What else was counted, by the names of `NOTES`."""
    shards: dict[str, StagedShard]
    """By split, in the order of `SPLITS`."""

    def write(self, folder: Path) -> None:
        """Write it into a task's folder."""
        write_json(folder / RECEIPT, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Receipt | None:
        """Read it from a task's folder; None where there is none."""
        try:
            raw: dict[str, Any] = json.loads((folder / RECEIPT).read_text("utf-8"))
        except FileNotFoundError:
            return None
        shards = {
            split: StagedShard(**{**shard, "files": {name: FileInfo(**info) for name, info in shard["files"].items()}})
            for split, shard in raw["shards"].items()
        }
        return cls(**{**raw, "shards": shards})


def task_folder(output: Path, number: int) -> Path:
    """Where a task lies when it is finished."""
    return output / WORK / TASKS / f"{number:05d}"


def is_finished(output: Path, number: int) -> bool:
    """Whether a task is finished. Its folder appears by one rename, with everything in it."""
    return (task_folder(output, number) / RECEIPT).is_file()


def read_receipt(output: Path, number: int) -> Receipt | None:
    """Read the receipt of a task; None while the task is not finished."""
    return Receipt.read(task_folder(output, number))


def clear(output: Path) -> None:
    """Remove all of `.work` but the lock, which is removed by the process that holds it."""
    for _ in range(5):  # a task that is still running elsewhere may write into a folder while it is being removed
        for entry in list((output / WORK).glob("*")):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink(missing_ok=True)
        if not any(entry.name != LOCK for entry in (output / WORK).glob("*")):
            return
