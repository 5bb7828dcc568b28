"""`DIR/.work`: all that an unfinished job keeps on disk, and how it is read and removed.

    .work/plan.json           what the job is
    .work/lock                held by the process that works here (see `lock`)
    .work/tokenizer/          the tokenizer's files, so that tasks need neither the Hub nor the folder named, and
                              loaded.npz: what transformers made of them, so that tasks need no transformers
    .work/stdin               standard input, where that is an input
    .work/merge.json          which merge is under way, in place of a plan
    .work/extend.json         what tasks may take over from an older directory (`--extend`)
    .work/attempt-NNNNN-XXXX  a task while it runs
    .work/tasks/NNNNN/        a finished task: shards, rejects.jsonl, receipt.json
    .work/slurm/              the batch script and the logs of its array
    .work/ray/                what lost workers of Ray wrote to standard error
    .work/run                 there where the job is one of `run`, which holds the folder as long as it works
    .work/refused             why a job whose tasks are all finished was not published

Everything unfinished lies below `.work`, temporary files included, so that a finished directory does not show how
often its job was killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import SPLITS, FileInfo
from sft_shards.formats.shards.contents import is_file_inside, read_inside
from sft_shards.formats.shards.files import atomic_write, write_json
from sft_shards.formats.shards.schema import SchemaError, build, parse

WORK = ".work"
PLAN = "plan.json"
TASKS = "tasks"
LOCK = "lock"
RUN = "run"
REFUSED = "refused"
RECEIPT = "receipt.json"
SCHEMA = 1
"""Version of the fields of a receipt."""
STAGED = ("tokens.bin", "tokens.idx", "loss_mask.bin", "loss_mask.idx")
"""The files of a shard in a task's folder that are published as they are."""


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
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Write it into a task's folder."""
        write_json(folder / RECEIPT, asdict(self))


def task_folder(output: Path, number: int) -> Path:
    """Where a task lies when it is finished."""
    return output / task_name(number)


def task_name(number: int) -> str:
    """The path of a finished task's folder below the output folder, for `formats.shards.contents`."""
    return f"{WORK}/{TASKS}/{number:05d}"


def is_finished(output: Path, number: int) -> bool:
    """Whether a task is finished. Its folder appears by one rename, with everything in it."""
    return is_file_inside(output, f"{task_name(number)}/{RECEIPT}")


def read_receipt(output: Path, number: int) -> Receipt | None:
    """Read the receipt of a task; None while the task is not finished.

    Raises:
        DataError: it is a link, of another schema version, of the wrong form, or names files that no task writes.
    """
    name = f"{task_name(number)}/{RECEIPT}"
    try:
        raw = parse(read_inside(output, name))
        schema = raw.get("schema", SCHEMA) if isinstance(raw, dict) else SCHEMA
        if schema != SCHEMA:
            raise SchemaError(f"schema version {schema!r:.60}, this release reads {SCHEMA}")
        receipt = build(Receipt, raw)
        for split, shard in receipt.shards.items():
            if split not in SPLITS or set(shard.files) != set(STAGED):
                raise SchemaError(f"shards.{split!r:.60}: not a split with the files {', '.join(STAGED)}")
    except FileNotFoundError:
        return None
    except SchemaError as error:
        raise DataError(
            f"{output / name}: not a receipt of schema version {SCHEMA} ({error}); start again with --overwrite"
        ) from None
    return receipt


def refuse(output: Path, why: str) -> None:
    """Note that a job is not published, and why; its tasks are kept for the same call with other limits."""
    with atomic_write(output / WORK / REFUSED, scratch=output / WORK) as file:
        file.write(f"{why}\n".encode("utf-8", "backslashreplace"))


def is_settled(output: Path) -> bool:
    """Whether another job may take the place of the unfinished one in a folder, whose lock the caller holds.

    That is so where it was refused, and where it is one of `run` (nobody else has its tasks) and holds no sequence.
    """
    if is_file_inside(output, f"{WORK}/{REFUSED}"):
        return True
    if not is_file_inside(output, f"{WORK}/{RUN}"):
        return False
    numbers = [int(entry.name) for entry in _entries(output / WORK / TASKS) if entry.name.isdecimal()]
    receipts = [read_receipt(output, number) for number in numbers]
    return not any(receipt.shards for receipt in receipts if receipt is not None)


def clear(output: Path, keep: Collection[str] = ()) -> None:
    """Remove all of `.work` but the lock, which is removed by the process that holds it.

    Args:
        keep: names of other files to leave there.
    """
    for _ in range(5):  # a task that is still running elsewhere may write into a folder while it is being removed
        left = [entry for entry in _entries(output / WORK) if entry.name != LOCK and entry.name not in keep]
        if not left:
            return
        for entry in left:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    """List a folder; nothing where another process has just removed it."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
