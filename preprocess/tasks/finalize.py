"""Publishing finished tasks as a shard directory: number the shards, move them into place, write the manifest last.

Every step is one rename or writes one whole file, and may be taken twice, so finalize can be killed anywhere and run
again. Nothing is moved before every task was checked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import (
    SPLITS,
    Counts,
    FileInfo,
    Manifest,
    Notes,
    PartInfo,
    ShardInfo,
    SourceInfo,
    SplitInfo,
    TemplateInfo,
)
from sft_shards.formats.shards.contents import folder_inside, size_inside
from sft_shards.formats.shards.files import atomic_write, fsync_directory, sha256_file, sync_folders
from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.preprocess.pipeline.reference import configured_template
from sft_shards.preprocess.sources.partition import combined_sha256
from sft_shards.preprocess.tasks.dedup import deduplicate
from sft_shards.preprocess.tasks.losses import check_losses
from sft_shards.preprocess.tasks.plan import Plan, Task
from sft_shards.preprocess.tasks.workdir import WORK, Receipt, read_receipt, refuse, task_folder, task_name
from sft_shards.preprocess.tasks.writer import ROWS, read_rejects, reject_line, shift_rows
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

Receipts = Mapping[int, Receipt]
"""By task number, of all tasks."""


def finalize(
    plan: Plan, folder: Path, tokenizer: Tokenizer, *, output: Path, max_rejects: str | None = None
) -> Manifest:
    """Complete the directory, and return its manifest. The caller holds the lock, and removes `.work`.

    Args:
        folder: where the tasks left their work, and where the directory is completed.
        output: the output folder as messages name it.
        max_rejects: the most records that may be left out, see `losses.check_losses`.

    Raises:
        DataError: tasks are missing, too many records were left out, or nothing is left to train on.
    """
    receipts = _receipts(plan, folder, output)
    if plan.config.dedup:
        deduplicate(plan, folder, tokenizer.vocab_size)
        receipts = _receipts(plan, folder, output)
    bases = _bases(plan, receipts)
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for receipt in receipts.values():
        rejected.update(receipt.rejected)
        notes.update(receipt.notes)
    records = sum(receipt.records for receipt in receipts.values())
    rejects = _merge_rejects(plan, bases, folder)
    counts = Counts(read=records, written=records - rejected.total(), rejected=dict(sorted(rejected.items())))
    try:
        check_losses(counts, _records(plan, receipts), max_rejects, folder)
    except DataError as error:
        refuse(folder, str(error))
        raise
    splits = {split: _place(split, plan, receipts, bases, folder) for split in SPLITS}
    tokenizer.copy_files(folder, "tokenizer", scratch=folder / WORK)
    template = _template(plan, tokenizer)
    template.copy_file(folder, scratch=folder / WORK)
    fsync_directory(folder)
    manifest = Manifest(
        config=plan.config.as_dict(),
        sources=_sources(plan, receipts, splits),
        tokenizer=tokenizer.info(),
        template=template,
        splits={split: info for split, info in splits.items() if info.shards},
        counts=counts,
        rejects=rejects,
        notes=Notes(engine=plan.engine_check, counts=dict(sorted(notes.items()))),
        versions=plan.versions,
    )
    manifest.write(folder, scratch=folder / WORK)
    return manifest


def _records(plan: Plan, receipts: Receipts) -> Counter[str]:
    """Count the records of each source, by its path."""
    read: Counter[str] = Counter()
    for task in plan.tasks:
        read[task.source.path] += receipts[task.number].records
    return read


def missing_tasks(plan: Plan, output: Path) -> list[int]:
    """List the tasks that are not finished. A finished one whose files are damaged is removed, and listed."""
    return [task.number for task in plan.tasks if not _is_whole(read_receipt(output, task.number), task, output)]


def _receipts(plan: Plan, folder: Path, output: Path) -> dict[int, Receipt]:
    missing = missing_tasks(plan, folder)
    if missing:
        shown = " ".join(f"--index {number}" for number in missing[:20])
        more = f" (and {len(missing) - 20} more: leave --index out for all)" if len(missing) > 20 else ""
        raise DataError(
            f"{output}: {len(missing)} of {len(plan.tasks)} tasks are not finished; "
            f"make them with: sft-preprocess task --output {output} {shown}{more}"
        )
    found = {task.number: read_receipt(folder, task.number) for task in plan.tasks}
    return {number: receipt for number, receipt in found.items() if receipt is not None}


def _is_whole(receipt: Receipt | None, task: Task, output: Path) -> bool:
    """Whether a task is finished, and each of its files has the size in the receipt or was moved to its place."""
    if receipt is None:
        return False
    for split, shard in receipt.shards.items():
        for file, facts in shard.files.items():
            size = size_inside(output, f"{task_name(task.number)}/{split}/{file}")
            if size not in (None, facts.bytes):
                shutil.rmtree(task_folder(output, task.number))
                return False
    return True


def _bases(plan: Plan, receipts: Receipts) -> dict[int, int]:
    """Number the first record of each task within its source: two tasks of 10 records each begin at 0 and 10."""
    bases: dict[int, int] = {}
    read: Counter[str] = Counter()
    for task in plan.tasks:
        bases[task.number] = read[task.source.path]
        read[task.source.path] += receipts[task.number].records
    return bases


def _merge_rejects(plan: Plan, bases: Mapping[int, int], output: Path) -> FileInfo:
    with atomic_write(output / REJECTS, scratch=output / WORK) as merged:
        for task in plan.tasks:
            for line in read_rejects(output, f"{task_name(task.number)}/{REJECTS}"):
                record = line.record + bases[task.number]
                merged.write(reject_line(line.source, record, line.reason, line.detail).encode("utf-8"))
    path = output / REJECTS
    return FileInfo(bytes=path.stat().st_size, sha256=sha256_file(path))


def _place(split: str, plan: Plan, receipts: Receipts, bases: Mapping[int, int], output: Path) -> SplitInfo:
    """Move the shards of a split to their places, numbered in the order of the tasks."""
    having = [task.number for task in plan.tasks if split in receipts[task.number].shards]
    width = max(5, len(str(len(having) - 1)))
    shards: list[ShardInfo] = []
    for at, number in enumerate(having):
        staged = receipts[number].shards[split]
        name = f"{at:0{width}d}"
        files = {}
        for file, facts in staged.files.items():
            kind, suffix = file.split(".")
            place = f"{kind}/{name}.{suffix}"
            folder_inside(output, f"{split}/{kind}")
            _move(output, f"{task_name(number)}/{split}/{file}", f"{split}/{place}", facts.bytes)
            files[place] = facts
        rows = task_folder(output, number) / split / ROWS
        files[f"rows/{name}.parquet"] = _place_rows(
            rows, output, split, name, base=bases[number], count=staged.sequences
        )
        shards.append(
            ShardInfo(
                name=name,
                sequences=staged.sequences,
                tokens=staged.tokens,
                trained_tokens=staged.trained_tokens,
                longest=staged.longest,
                files=files,
            )
        )
    if shards:
        sync_folders(output / split)
    return SplitInfo.of(tuple(shards))


def _move(output: Path, staged: str, place: str, size: int) -> None:
    """Move a file of a task to its place, both paths below the output folder, or find it there with its size."""
    if size_inside(output, staged) is not None:
        os.replace(output / staged, output / place)
    elif size_inside(output, place) != size:
        raise DataError(f"{output / place}: lost between task and manifest; start again with --overwrite")


def _place_rows(staged: Path, output: Path, split: str, name: str, *, base: int, count: int) -> FileInfo:
    """Write the rows file with record numbers counted from the start of the source; the staged file stays as it is."""
    target = folder_inside(output, f"{split}/rows") / f"{name}.parquet"
    temporary = output / WORK / f"rows-{os.urandom(6).hex()}"
    facts = shift_rows(staged, temporary, base, root=output, count=count)
    os.replace(temporary, target)
    return facts


def _sources(plan: Plan, receipts: Receipts, splits: Mapping[str, SplitInfo]) -> tuple[SourceInfo, ...]:
    """Describe each source file: what it is, its hash, and its parts with the shards that each became."""
    names = {split: iter(info.shards) for split, info in splits.items()}
    parts: dict[str, list[PartInfo]] = {source.path: [] for source in plan.sources}
    for task in plan.tasks:
        receipt = receipts[task.number]
        parts[task.source.path].append(
            PartInfo(
                begin=task.part.begin,
                end=task.part.end,
                sha256=receipt.sha256,
                records=receipt.records,
                notes=receipt.notes,
                shards={split: next(names[split]).name for split in SPLITS if split in receipt.shards},
            )
        )
    return tuple(
        SourceInfo(
            **source.published(),
            sha256=combined_sha256(parts[source.path]),
            records=sum(part.records for part in parts[source.path]),
            parts=tuple(parts[source.path]),
        )
        for source in plan.sources
    )


def _template(plan: Plan, tokenizer: Tokenizer) -> TemplateInfo:
    template = configured_template(plan.config, plan.template, tokenizer, plan.template_source)
    return TemplateInfo(
        name=template.name,
        sha256=template.sha256,
        header=template.header,
        stop=tuple(template.tokens.stop),
        source=template.source,
        arguments=plan.config.template_arg,
        file=plan.template if plan.template_source is not None else "",
        tools_source=template.tools_source or "",
        tools_sha256=hashlib.sha256(template.tools_source.encode()).hexdigest() if template.tools_source else "",
    )
