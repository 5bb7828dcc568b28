"""What a task writes: one shard of each split at most, and the records it left out."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import MASK_DTYPE, SPLITS, IndexedWriter, token_dtype
from sft_shards.formats.shards.files import sha256_file
from sft_shards.preprocess.pipeline.batch import Batch, Reject
from sft_shards.preprocess.tasks.dedup import Digests

KINDS = ("tokens", "loss_mask")
ROWS = "rows.parquet"
REJECTS = "rejects.jsonl"


class ShardWriter:
    """One shard of one split while it is written: tokens, masks, and where each sequence came from."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.tokens = IndexedWriter(folder / KINDS[0], token_dtype(vocab_size), limit=vocab_size)
        self.loss_mask = IndexedWriter(folder / KINDS[1], MASK_DTYPE, limit=2)
        self.records = array("q")
        self.trained = array("q")

    def append(self, batch: Batch) -> None:
        """Add the sequences of a batch that is of this split as a whole."""
        self.tokens.append(batch.ids, batch.lengths)
        self.loss_mask.append(batch.loss_mask, batch.lengths)
        self.records.frombytes(batch.records.tobytes())
        self.trained.frombytes(batch.trained.tobytes())

    def close(self, source: str) -> dict[str, Any]:
        """Finish the files; what the manifest says of the shard, files by their names."""
        self.tokens.close()
        self.loss_mask.close()
        lengths = np.frombuffer(self.tokens.lengths, dtype=np.int32)
        trained = np.frombuffer(self.trained, dtype=np.int64)
        write_rows(self.folder / ROWS, source, np.frombuffer(self.records, dtype=np.int64), lengths, trained)
        files = {}
        for kind, writer in zip(KINDS, (self.tokens, self.loss_mask), strict=True):
            for suffix, digest in writer.sha256.items():
                size = (self.folder / (kind + suffix)).stat().st_size
                files[kind + suffix] = {"bytes": size, "sha256": digest}
        return {
            "sequences": len(lengths),
            "tokens": self.tokens.items,
            "trained_tokens": int(trained.sum()),
            "longest": int(lengths.max()),
            "files": files,
        }

    def discard(self) -> None:
        """Close the files, whatever they hold."""
        self.tokens.discard()
        self.loss_mask.discard()


class TaskWriter:
    """All that one task writes into its folder."""

    def __init__(self, folder: Path, source: str, vocab_size: int) -> None:
        self.folder = folder
        self.source = source
        self.vocab_size = vocab_size
        self.shards: dict[str, ShardWriter] = {}
        self._digests: list[Digests] = []
        self._rejects = open(folder / REJECTS, "w", encoding="utf-8")  # noqa: SIM115

    def append(self, batch: Batch) -> None:
        """Add the sequences to the shards of their splits, and write down what was left out."""
        for number in np.unique(batch.splits):
            split = SPLITS[number]
            if split not in self.shards:
                self.shards[split] = ShardWriter(self.folder / split, self.vocab_size)
            self.shards[split].append(batch.of_split(split))
        self.reject(batch.rejects)
        if len(batch.digests):
            self._digests.append(Digests(records=batch.records, splits=batch.splits, digests=batch.digests))

    def reject(self, rejects: Iterable[Reject]) -> None:
        """Write down records that were left out."""
        for reject in rejects:
            self._rejects.write(reject_line(self.source, reject.record, reject.reason, reject.detail))

    def close(self) -> dict[str, Any]:
        """Finish all files; what the manifest says of each shard, by split."""
        self._rejects.flush()
        os.fsync(self._rejects.fileno())
        self._rejects.close()
        if self._digests:
            Digests.joined(self._digests).save(self.folder)
        return {split: self.shards[split].close(self.source) for split in SPLITS if split in self.shards}

    def discard(self) -> None:
        """Close the files without a word about a disk that is full."""
        for closing in (self._rejects.close, *(shard.discard for shard in self.shards.values())):
            try:
                closing()
            except OSError:
                continue


def reject_line(source: str, record: int, reason: str, detail: str) -> str:
    """A line of `rejects.jsonl`."""
    value = {"source": source, "record": record, "reason": reason, "detail": detail}
    return json.dumps(value, ensure_ascii=False) + "\n"


def write_rows(
    path: Path, source: str, records: NDArray[np.int64], lengths: NDArray[np.int32], trained: NDArray[np.int64]
) -> None:
    """Write a shard's `rows` file: per sequence its source, record number, tokens and trained tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "source": pa.DictionaryArray.from_arrays(np.zeros(len(lengths), dtype=np.int32), pa.array([source])),
            "record": pa.array(records),
            "tokens": pa.array(lengths, type=pa.int32()),
            "trained_tokens": pa.array(trained.astype(np.int32)),
        }
    )
    pq.write_table(table, path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def shift_rows(staged: Path, target: Path, base: int) -> dict[str, Any]:
    """Write a task's `rows` file with record numbers counted from the beginning of the source; its size and hash."""
    import pyarrow.parquet as pq

    table: Any = pq.read_table(staged)
    source = table["source"].combine_chunks().dictionary[0].as_py() if table.num_rows else ""
    columns = [table[name].to_numpy() for name in ("record", "tokens", "trained_tokens")]
    write_rows(target, source, columns[0] + base, columns[1], columns[2])
    return {"bytes": target.stat().st_size, "sha256": sha256_file(target)}
