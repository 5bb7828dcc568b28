"""Making finished tasks into a shard directory: number the shards, move them into place, write the manifest last.

Every step is a rename or writes a whole file, and is skipped where it was taken before: finalize can be killed
anywhere and run again.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from formats.errors import DataError
from formats.shards import SPLITS, Counts, FileInfo, Manifest, ShardInfo, SplitInfo
from formats.shards.files import atomic_write, fsync_directory
from formats.templates import TOKENIZER, template_source
from preprocess.pipeline import load_template
from preprocess.plan import WORK, Plan
from preprocess.task import read_receipt, task_folder
from preprocess.tokenizer import Tokenizer

LIBRARIES = ("sft-shards", "tokenizers", "transformers", "jinja2", "numpy", "pyarrow")


def finalize(plan: Plan, output: Path, tokenizer: Tokenizer, *, max_rejects: str | None = None) -> Manifest:
    """Publish the directory, and return its manifest.

    Args:
        max_rejects: the most records that may be left out: a number, or a percentage such as "1%"; None for any.

    Raises:
        DataError: tasks are missing, too many records were left out, or nothing is left to train on.
    """
    found = {task.number: read_receipt(output, task.number) for task in plan.tasks}
    receipts = {number: receipt for number, receipt in found.items() if receipt is not None}
    missing = [str(number) for number in found if number not in receipts]
    if missing:
        raise DataError(f"{output}: tasks {', '.join(missing[:20])} are not finished; run the same command again")
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for receipt in receipts.values():
        rejected.update(receipt["rejected"])
        notes.update(receipt["notes"])
    records = sum(receipt["records"] for receipt in receipts.values())
    _merge_rejects(plan, output)
    written = records - rejected.total()
    counts = Counts(read=records, written=written, rejected=dict(sorted(rejected.items())))
    _check_rejects(counts, max_rejects, output)
    splits = {split: _place(split, receipts, output) for split in SPLITS}
    tokenizer.copy_files(output / "tokenizer")
    manifest = Manifest(
        config=plan.config.as_dict(),
        sources=tuple({**task.source.as_dict(), "records": receipts[task.number]["records"]} for task in plan.tasks),
        tokenizer=tokenizer.info(),
        template=_template(plan, tokenizer),
        splits={split: info for split, info in splits.items() if info.shards},
        counts=counts,
        notes=dict(sorted(notes.items())),
        versions=versions(),
    )
    manifest.write(output)
    shutil.rmtree(output / WORK)
    return manifest


def versions() -> dict[str, str]:
    """The versions that a job's bytes may depend on."""
    out = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "unknown"
    return out


def check_limit(limit: str, counts: Counts) -> bool:
    """Whether so many records were left out as `--max-rejects` allows.

    >>> check_limit("1%", Counts(read=100, written=99, rejected={"overlong": 1}))
    True
    """
    rejected = sum(counts.rejected.values())
    if limit.endswith("%"):
        return rejected * 100 <= float(limit[:-1]) * counts.read
    return rejected <= int(limit)


def _check_rejects(counts: Counts, limit: str | None, output: Path) -> None:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.rejected.items())
    if counts.written == 0:
        raise DataError(f"{output}: all {counts.read:,} records were left out ({reasons}); see {output}/rejects.jsonl")
    if limit is not None and not check_limit(limit, counts):
        raise DataError(
            f"{output}: {sum(counts.rejected.values()):,} of {counts.read:,} records were left out ({reasons}), "
            f"more than --max-rejects {limit}; see {output}/rejects.jsonl, then run again with --overwrite"
        )


def _merge_rejects(plan: Plan, output: Path) -> None:
    with atomic_write(output / "rejects.jsonl") as merged:
        for task in plan.tasks:
            with open(task_folder(output, task.number) / "rejects.jsonl", "rb") as file:
                shutil.copyfileobj(file, merged)


def _place(split: str, receipts: dict[int, dict[str, Any]], output: Path) -> SplitInfo:
    """Move a split's shards to their numbers, in task order."""
    shards: list[ShardInfo] = []
    for number, receipt in sorted(receipts.items()):
        info = receipt["shards"].get(split)
        if info is None:
            continue
        name = f"{len(shards):05d}"
        files = {}
        for file, facts in info["files"].items():
            kind, suffix = file.split(".")
            place = f"{kind}/{name}.{suffix}"
            target = output / split / place
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = task_folder(output, number) / split / file
            if staged.exists():
                os.replace(staged, target)
            elif not target.exists() or target.stat().st_size != facts["bytes"]:
                raise DataError(f"{target}: lost between task and manifest; start again with --overwrite")
            files[place] = FileInfo(**facts)
        shards.append(ShardInfo(name=name, **{**info, "files": files}))
    for kind in {Path(place).parent for shard in shards for place in shard.files}:
        fsync_directory(output / split / kind)
    return SplitInfo.of(tuple(shards))


def _template(plan: Plan, tokenizer: Tokenizer) -> dict[str, Any]:
    template = load_template(plan.template, tokenizer)
    source = tokenizer.chat_template if plan.template == TOKENIZER else template_source(plan.template)
    return {
        "name": template.name,
        "sha256": template.sha256,
        "header": template.header,
        "stop": list(template.tokens.stop),
        "source": source,
    }


def read_rejects(output: Path) -> list[dict[str, Any]]:
    """The records that were left out."""
    text = (output / "rejects.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
