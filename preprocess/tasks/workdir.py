"""`DIR/.work`: all that an unfinished job keeps on disk, and how it is read and cleared away.

    .work/plan.json           what the job is
    .work/lock                held by whoever works here (see `lock`)
    .work/tokenizer/          the tokenizer's files, so that tasks need neither the Hub nor the folder named, and
                              loaded.json: what transformers made of them, so that tasks need not ask it
    .work/stdin               standard input, if that was an input
    .work/attempt-NNNNN-XXXX  a task while it runs
    .work/tasks/NNNNN/        a finished task: shards, rejects.jsonl, receipt.json
    .work/slurm/              the batch script and the logs of its array

Whatever is not finished lies below `.work`, temporary files included, so that a finished directory has no trace of
how often its job was killed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

WORK = ".work"
TASKS = "tasks"
LOCK = "lock"
RECEIPT = "receipt.json"


def task_folder(output: Path, number: int) -> Path:
    """Where a finished task lies."""
    return output / WORK / TASKS / f"{number:05d}"


def is_finished(output: Path, number: int) -> bool:
    """Whether a task is finished: its folder appears by one rename, with all that is in it."""
    return (task_folder(output, number) / RECEIPT).is_file()


def read_receipt(output: Path, number: int) -> dict[str, Any] | None:
    """What a finished task wrote down, or None while it is not finished."""
    try:
        receipt: dict[str, Any] = json.loads((task_folder(output, number) / RECEIPT).read_text("utf-8"))
    except FileNotFoundError:
        return None
    return receipt


def clear(output: Path) -> None:
    """Remove all of `.work` but the lock, which goes with the process that holds it."""
    for _ in range(5):  # a straggler may write into a folder while it is being removed
        for entry in list((output / WORK).glob("*")):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink(missing_ok=True)
        if not any(entry.name != LOCK for entry in (output / WORK).glob("*")):
            return
