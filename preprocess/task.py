"""Running one task: its records to at most one shard of each split, committed by one rename.

What a task leaves behind is a folder `.work/tasks/00000` that is either whole or not there. It holds the shards,
the rejects, and `receipt.json` with all that the manifest will say of them. Two attempts at once each write a
folder of their own; the first to rename wins, and both are the same.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from formats.errors import DataError
from formats.shards import MASK_DTYPE, SPLITS, IndexedWriter, token_dtype
from formats.shards.files import fsync_directory, sha256_file, write_json
from preprocess.pipeline import Pipeline, Reject, Row
from preprocess.plan import WORK, Plan, Task
from preprocess.sources import read

KINDS = ("tokens", "loss_mask")
ROWS = "rows"


class ShardWriter:
    """One shard of one split while it is written: tokens, masks, and where each sequence came from."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.tokens = IndexedWriter(folder / KINDS[0], token_dtype(vocab_size), limit=vocab_size)
        self.loss_mask = IndexedWriter(folder / KINDS[1], MASK_DTYPE, limit=2)
        self.records = array("q")
        self.trained = array("q")

    def append(self, row: Row) -> None:
        """Add one sequence."""
        length = np.asarray([len(row.encoded.ids)], dtype=np.int64)
        self.tokens.append(row.encoded.ids, length)
        self.loss_mask.append(row.encoded.loss_mask, length)
        self.records.append(row.record)
        self.trained.append(int(row.encoded.loss_mask.sum()))

    def close(self, source: str) -> dict[str, Any]:
        """Finish the files; what the manifest says of the shard, files by their suffix."""
        self.tokens.close()
        self.loss_mask.close()
        lengths = np.frombuffer(self.tokens.lengths, dtype=np.int32)
        self._write_rows(source, lengths)
        files = {}
        for kind, writer in zip(KINDS, (self.tokens, self.loss_mask), strict=True):
            for suffix, digest in writer.sha256.items():
                size = (self.folder / (kind + suffix)).stat().st_size
                files[kind + suffix] = {"bytes": size, "sha256": digest}
        rows = self.folder / f"{ROWS}.parquet"
        files[rows.name] = {"bytes": rows.stat().st_size, "sha256": sha256_file(rows)}
        return {
            "sequences": len(lengths),
            "tokens": self.tokens.items,
            "trained_tokens": sum(self.trained),
            "longest": int(lengths.max()),
            "files": files,
        }

    def _write_rows(self, source: str, lengths: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {
                "source": pa.DictionaryArray.from_arrays(np.zeros(len(lengths), dtype=np.int32), pa.array([source])),
                "record": pa.array(np.frombuffer(self.records, dtype=np.int64)),
                "tokens": pa.array(lengths, type=pa.int32()),
                "trained_tokens": pa.array(np.frombuffer(self.trained, dtype=np.int64).astype(np.int32)),
            }
        )
        path = self.folder / f"{ROWS}.parquet"
        pq.write_table(table, path)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def task_folder(output: Path, number: int) -> Path:
    """Where a finished task lies."""
    return output / WORK / "tasks" / f"{number:05d}"


def read_receipt(output: Path, number: int) -> dict[str, Any] | None:
    """What a finished task wrote down, or None while it is not finished."""
    path = task_folder(output, number) / "receipt.json"
    if not path.is_file():
        return None
    receipt: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return receipt


def run_task(
    plan: Plan, task: Task, output: Path, pipeline: Pipeline, progress: Callable[[int, int, int], None] | None = None
) -> dict[str, Any]:
    """Run a task, unless it is finished already, and return its receipt.

    Args:
        progress: called now and then with the records, tokens and rejects that came since the last call.

    Raises:
        DataError: the source is not the file that was planned, is damaged, or the disk is full.
    """
    done = read_receipt(output, task.number)
    if done is not None:
        return done
    final = task_folder(output, task.number)
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"attempt-{task.number:05d}-", dir=output / WORK))
    try:
        receipt = _write(plan, task, folder, pipeline, progress or (lambda records, tokens, rejects: None))
        write_json(folder / "receipt.json", receipt)
        try:
            os.rename(folder, final)
        except OSError:
            if read_receipt(output, task.number) is None:
                raise
        fsync_directory(final.parent)
    except OSError as error:
        raise DataError(
            f"{output}: cannot write task {task.number} ({error.strerror or error}); free the disk and go on"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return receipt


def _write(
    plan: Plan, task: Task, folder: Path, pipeline: Pipeline, progress: Callable[[int, int, int], None]
) -> dict[str, Any]:
    source = task.source
    try:
        if sha256_file(source.path) != source.sha256:
            raise DataError(f"{source.path}: changed since the job was planned; plan again with --overwrite")
    except FileNotFoundError:
        raise DataError(f"{source.path}: gone since the job was planned; put it back") from None
    writers: dict[str, ShardWriter] = {}
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    read_count = 0
    since = [0, 0, 0]
    with open(folder / "rejects.jsonl", "w", encoding="utf-8") as rejects:
        for row in pipeline.rows(read(source), source.format):
            read_count += 1
            since[0] += 1
            if isinstance(row, Reject):
                rejected[row.reason] += 1
                since[2] += 1
                line = {"source": source.path, "record": row.record, "reason": row.reason, "detail": row.detail}
                rejects.write(json.dumps(line, ensure_ascii=False) + "\n")
            else:
                if row.split not in writers:
                    writers[row.split] = ShardWriter(folder / row.split, pipeline.encoder.tokenizer.vocab_size)
                writers[row.split].append(row)
                notes.update(row.notes)
                notes["straddling_tokens"] += row.encoded.straddling
                since[1] += len(row.encoded.ids)
            if since[0] >= 512:
                progress(*since)
                since = [0, 0, 0]
        progress(*since)
        rejects.flush()
        os.fsync(rejects.fileno())
    return {
        "records": read_count,
        "rejected": dict(sorted(rejected.items())),
        "notes": dict(sorted(notes.items())),
        "shards": {split: writers[split].close(source.path) for split in SPLITS if split in writers},
    }
