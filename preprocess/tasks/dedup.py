"""`--dedup`: leaving out all but the first of equal conversations, over all tasks of a job.

Tasks know nothing of each other, so each writes down a digest per sequence. When all tasks are finished, those that
hold a later one of equal conversations are written anew without it, and it joins their rejects; a task without
duplicates is not touched. The price is memory: 40 bytes a conversation while duplicates are looked for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import prefix_sums
from sft_shards.formats.shards import SPLITS, IndexedReader
from sft_shards.formats.shards.files import fsync_directory, sync_folders
from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.formats.shards.rows import read_rows
from sft_shards.preprocess.pipeline.batch import Batch, Reject, count_trained
from sft_shards.preprocess.pipeline.truncation import UNROLLED, count_unrolled
from sft_shards.preprocess.tasks.digests import Digests
from sft_shards.preprocess.tasks.plan import Plan, Task
from sft_shards.preprocess.tasks.workdir import WORK, read_receipt, task_folder, task_name
from sft_shards.preprocess.tasks.writer import ROWS, TaskWriter, read_rejects, turns_of

REASON = "duplicate"


def deduplicate(plan: Plan, output: Path, vocab_size: int) -> None:
    """Take duplicates out of finished tasks. Killed and called again, it goes on with the tasks that still have some.

    Args:
        vocab_size: of the tokenizer, which decides the dtype of token ids.
    """
    tasks = [Digests.load(output, task_name(task.number)) for task in plan.tasks]
    every = np.concatenate([one.digests for one in tasks]) if tasks else np.zeros((0, 16), dtype=np.uint8)
    if not len(every):
        return
    keys = np.ascontiguousarray(every).view("V16").reshape(-1)
    # Four sequences of three records, 0 0 1 2, with keys A A B A: first = [0, 2], which = [0, 0, 1, 0], and so
    # first[which] = [0, 0, 2, 0]. The last one is a repetition, because the first of its key is of another record.
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    owners = _record_numbers(tasks)
    repeated = owners[first[which]] != owners
    begin = 0
    for task, digests in zip(plan.tasks, tasks, strict=True):
        here = repeated[begin : begin + len(digests.records)]
        begin += len(digests.records)
        if here.any():
            _rewrite(task, output, digests, ~here, vocab_size)


def _record_numbers(tasks: Sequence[Digests]) -> NDArray[np.int64]:
    """Return int64[n]: the records of all tasks numbered one after the other, for each of their sequences."""
    numbers = [np.unique(one.records, return_inverse=True)[1] for one in tasks]
    counts = prefix_sums(np.asarray([int(own.max(initial=-1)) + 1 for own in numbers], dtype=np.int64))
    return np.concatenate([own + base for own, base in zip(numbers, counts[:-1].tolist(), strict=True)])


def _rewrite(task: Task, output: Path, digests: Digests, keep: NDArray[np.bool_], vocab_size: int) -> None:
    """Make a task's folder anew with the sequences that `keep`, bool[n], is true for."""
    old = task_folder(output, task.number)
    receipt = read_receipt(output, task.number)
    assert receipt is not None, "duplicates are looked for when all tasks are finished"
    folder = Path(tempfile.mkdtemp(prefix=f"attempt-{task.number:05d}-", dir=output / WORK))
    writer = TaskWriter(folder, task.source.path, vocab_size)
    rejects = {
        line.record: Reject(record=line.record, reason=line.reason, detail=line.detail)
        for line in read_rejects(output, f"{task_name(task.number)}/{REJECTS}")
    }
    for record in np.unique(digests.records[~keep]).tolist():
        rejects[record] = Reject(record=record, reason=REASON, detail="equal to a conversation before it")
    unrolled: Counter[str] = Counter()
    for split in receipt.shards:
        kept = _kept(output, old / split, SPLITS.index(split), digests, keep)
        writer.append(kept)
        unrolled += count_unrolled(kept.records, kept.lengths)
    writer.reject(rejects[record] for record in sorted(rejects))
    shards = writer.close()
    Digests(records=digests.records[keep], splits=digests.splits[keep], digests=digests.digests[keep]).save(folder)
    reasons = Counter(reject.reason for reject in rejects.values())
    notes = {name: count for name, count in receipt.notes.items() if name not in UNROLLED} | unrolled
    counted = dict(sorted(notes.items()))
    replace(receipt, rejected=dict(sorted(reasons.items())), notes=counted, shards=shards).write(folder)
    sync_folders(folder)
    stale = Path(tempfile.mkdtemp(prefix=f"attempt-{task.number:05d}-", dir=output / WORK))
    os.rename(old, stale / "old")  # killed here, the task counts as not finished, and is run again
    os.rename(folder, old)
    fsync_directory(old.parent)
    shutil.rmtree(stale)


def _kept(output: Path, folder: Path, split: int, digests: Digests, keep: NDArray[np.bool_]) -> Batch:
    """Read the sequences to keep out of one shard of a task."""
    tokens, loss_mask = (IndexedReader(folder / kind, root=output) for kind in ("tokens", "loss_mask"))
    here = digests.splits == split
    stays = keep[here]
    inside = np.repeat(stays, tokens.lengths)  # bool[tokens of the shard]
    lengths, mask = tokens.lengths[stays].astype(np.int64), np.asarray(loss_mask.items[inside])
    turns = turns_of(read_rows(folder / ROWS, ["record"], root=output, count=len(tokens)))
    return Batch(
        records=digests.records[here][stays],
        splits=np.full(int(stays.sum()), split, dtype=np.uint8),
        digests=np.zeros((0, 16), dtype=np.uint8),
        lengths=lengths,
        ids=tokens.items[inside].astype(np.int32),
        loss_mask=mask,
        trained=count_trained(mask, lengths),
        rejects=(),
        notes=Counter(),
        turns=turns and turns.select(np.flatnonzero(stays)),
    )
