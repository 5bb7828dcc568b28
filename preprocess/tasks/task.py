"""Running one task: its records become at most one shard of each split, committed by one rename.

A task leaves a folder `.work/tasks/00000` that is either whole or not there. It holds the shards, the rejects, and
`receipt.json` with all that the manifest will say of them. Two attempts at once each write a folder of their own; the
first to rename wins, and both are the same. A task knows nothing of the tasks before it: its record numbers count from
the beginning of its part, except in the message that ends a job.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.files import fsync_directory, sync_folders
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.sources import PartReader
from sft_shards.preprocess.tasks.output import look
from sft_shards.preprocess.tasks.plan import Plan, Task
from sft_shards.preprocess.tasks.reuse import adopt
from sft_shards.preprocess.tasks.workdir import WORK, Receipt, read_receipt, task_folder
from sft_shards.preprocess.tasks.writer import TaskWriter
from sft_shards.preprocess.tokenizer.backends import load_ahead, load_backend
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

RECORD = re.compile(r"record (\d+)(.*)", re.DOTALL)
"""How an error of the pipeline begins: with the number of a record within the part."""

Report = Callable[[int, int, int, int], None]
"""Takes the records, tokens, rejects and input bytes since its last call."""


def planned_pipeline(plan: Plan, tokenizer: Tokenizer) -> Pipeline:
    """Make the pipeline for the tasks of a plan, with the backend that was planned.

    Raises:
        DataError: the backend cannot be used on this machine.
    """
    try:
        load_ahead(plan.engine, tokenizer)
        tokenizer.backend  # noqa: B018 - parsed here while the other thread parses fastokens'
        engine = load_backend(plan.engine, tokenizer)
    except (ImportError, ValueError) as error:
        raise DataError(f"the job was planned with {plan.engine}, which cannot be used here ({error})") from None
    pipeline = Pipeline(plan.config, plan.template, tokenizer, engine, source=plan.template_source)
    gc.collect()
    gc.freeze()  # else every collection walks through the vocabulary, hundreds of thousands of objects
    return pipeline


def _silent(records: int, tokens: int, rejects: int, size: int) -> None:
    pass


def run_task(plan: Plan, task: Task, output: Path, pipeline: Pipeline, report: Report = _silent) -> Receipt:
    """Run a task, unless it is finished already, and return its receipt.

    Raises:
        DataError: the source is not the file that was planned, is damaged, or the disk is full.
    """
    done = read_receipt(output, task.number)
    if done is not None:
        return done
    final = task_folder(output, task.number)
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"attempt-{task.number:05d}-", dir=output / WORK))
        older = None if plan.config.dedup else adopt(task, output, folder)  # a published shard has no digests
        receipt = older or _write(plan, task, folder, pipeline, report)
        receipt.write(folder)
        sync_folders(folder)
        try:
            os.rename(folder, final)
        except OSError:
            if read_receipt(output, task.number) is None:
                raise
        fsync_directory(final.parent)
    except DataError as error:
        if found := RECORD.match(str(error)):
            number = int(found[1]) + _records_before(plan, task, output)
            raise DataError(f"{task.source.path}: record {number}{found[2]}") from None
        raise
    except OSError as error:
        if look(output).is_complete:
            raise DataError(f"{output}: another process published it meanwhile; nothing is left to do") from None
        raise DataError(
            f"{output}: cannot write task {task.number} ({error.strerror or error}); free the disk and go on"
        ) from None
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return receipt


def _write(plan: Plan, task: Task, folder: Path, pipeline: Pipeline, report: Report) -> Receipt:
    reader = PartReader(task.source, task.part, plan.config.max_record_bytes)
    writer = TaskWriter(folder, task.source.path, pipeline.tokenizer.vocab_size)
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    records = reported = 0
    pipeline = pipeline.of(task.source.options)
    pipeline.start_task()
    try:
        for chunk in reader.batches():
            tokens = rejects = 0
            for batch in pipeline.batches(chunk, task.source.format):
                writer.append(batch)
                rejected.update(reject.reason for reject in batch.rejects)
                notes.update(batch.notes)
                tokens += len(batch.ids)
                rejects += len(batch.rejects)
            records += len(chunk)
            size = min(reader.consumed, task.bytes) - reported
            reported += size
            report(len(chunk), tokens, rejects, size)
        shards = writer.close()
    except BaseException:
        writer.discard()
        raise
    report(0, 0, 0, task.bytes - reported)
    return Receipt(
        records=records,
        sha256=reader.sha256,
        rejected=dict(sorted(rejected.items())),
        notes=dict(sorted(notes.items())),
        shards=shards,
    )


def _records_before(plan: Plan, task: Task, output: Path) -> int:
    """Count the records of the source before a task's part, for a message about one of its records.

    What other tasks have not counted yet is read.
    """
    count = 0
    for before in plan.tasks[: task.number]:
        if before.source == task.source:
            done = read_receipt(output, before.number)
            batches = PartReader(before.source, before.part, plan.config.max_record_bytes).batches()
            count += done.records if done else sum(map(len, batches))
    return count
