"""Leaving out all but the first of equal conversations, over all tasks of a job.

Tasks know nothing of each other, so each writes down a 16-byte digest per sequence; when all are finished, the later
ones of equal digests are taken out of the shards of their tasks, and stand among the rejects. A task without
duplicates is left as it is. It holds 40 bytes a conversation in memory, for as long as it looks.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import SPLITS, IndexedReader
from sft_shards.formats.shards.files import fsync_directory, write_json
from sft_shards.preprocess.pipeline.batch import Batch, Reject, count_trained
from sft_shards.preprocess.tasks.workdir import RECEIPT, WORK, read_receipt, task_folder

if TYPE_CHECKING:
    from sft_shards.preprocess.tasks.plan import Plan, Task

NAME = "digests.npz"


@dataclass(frozen=True, kw_only=True)
class Digests:
    """What a task wrote down of its sequences, in the order of their records."""

    records: NDArray[np.int64]
    splits: NDArray[np.uint8]
    """Index in `SPLITS`."""
    digests: NDArray[np.uint8]
    """u8[n, 16]."""

    @classmethod
    def joined(cls, parts: Sequence[Digests]) -> Digests:
        """Several, one after the other."""
        return cls(
            records=np.concatenate([part.records for part in parts]),
            splits=np.concatenate([part.splits for part in parts]),
            digests=np.concatenate([part.digests for part in parts]),
        )

    def save(self, folder: Path) -> None:
        """Write them into a task's folder."""
        np.savez(folder / NAME, records=self.records, splits=self.splits, digests=self.digests)

    @classmethod
    def load(cls, folder: Path) -> Digests:
        """Read them; none where the task made no sequence."""
        if not (folder / NAME).is_file():
            return cls(
                records=np.zeros(0, dtype=np.int64),
                splits=np.zeros(0, dtype=np.uint8),
                digests=np.zeros((0, 16), dtype=np.uint8),
            )
        with np.load(folder / NAME) as found:
            return cls(records=found["records"], splits=found["splits"], digests=found["digests"])


def deduplicate(plan: Plan, output: Path, vocab_size: int) -> None:
    """Take duplicates out of finished tasks. Can be stopped anywhere: what was done is found done."""
    found = [Digests.load(task_folder(output, task.number)) for task in plan.tasks]
    every = np.concatenate([one.digests for one in found]) if found else np.zeros((0, 16), dtype=np.uint8)
    if not len(every):
        return
    keys = np.ascontiguousarray(every).view("V16").reshape(-1)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    later = first[which] != np.arange(len(keys))
    begin = 0
    for task, one in zip(plan.tasks, found, strict=True):
        here = later[begin : begin + len(one.records)]
        begin += len(one.records)
        if here.any():
            _rewrite(task, output, one, ~here, vocab_size)


def _rewrite(task: Task, output: Path, found: Digests, keep: NDArray[np.bool_], vocab_size: int) -> None:
    """Make a task's folder again without some of its sequences."""
    from sft_shards.preprocess.tasks.writer import REJECTS, TaskWriter

    old = task_folder(output, task.number)
    receipt = read_receipt(output, task.number)
    assert receipt is not None, "only finished tasks are looked at"
    folder = Path(tempfile.mkdtemp(prefix=f"attempt-{task.number:05d}-", dir=output / WORK))
    writer = TaskWriter(folder, task.source.path, vocab_size)
    rejects = [json.loads(line) for line in (old / REJECTS).read_text("utf-8").split("\n") if line]
    lines = {one["record"]: Reject(record=one["record"], reason=one["reason"], detail=one["detail"]) for one in rejects}
    for record in found.records[~keep]:
        detail = "equal to a conversation before it"
        lines[int(record)] = Reject(record=int(record), reason="duplicate", detail=detail)
    for split in receipt["shards"]:
        number = SPLITS.index(split)
        tokens, loss_mask = (IndexedReader(old / split / kind) for kind in ("tokens", "loss_mask"))
        stays = keep[found.splits == number]
        inside = np.repeat(stays, tokens.lengths)
        lengths, mask = tokens.lengths[stays].astype(np.int64), np.asarray(loss_mask.items[inside])
        writer.append(
            Batch(
                records=found.records[found.splits == number][stays],
                splits=np.full(int(stays.sum()), number, dtype=np.uint8),
                digests=np.zeros((0, 16), dtype=np.uint8),
                lengths=lengths,
                ids=tokens.items[inside].astype(np.int32),
                loss_mask=mask,
                trained=count_trained(mask, lengths),
                rejects=(),
                notes=Counter(),
            )
        )
    writer.reject(lines[record] for record in sorted(lines))
    shards: dict[str, Any] = writer.close()
    Digests(records=found.records[keep], splits=found.splits[keep], digests=found.digests[keep]).save(folder)
    reasons = Counter(one.reason for one in lines.values())
    write_json(folder / RECEIPT, {**receipt, "rejected": dict(sorted(reasons.items())), "shards": shards})
    fsync_directory(folder)
    stale = Path(tempfile.mkdtemp(prefix=f"attempt-{task.number:05d}-", dir=output / WORK))
    os.rename(old, stale / "old")  # stopped here, the task is missing, and is run again
    os.rename(folder, old)
    shutil.rmtree(stale)
