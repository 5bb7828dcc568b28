"""What a task writes: at most one shard of each split, and the records that it left out.

Files are written under the names that they have in a task's folder; the task's folder as a whole is renamed when it is
finished. Parquet files are handed to pyarrow open, because it takes a path such as `a:b/c` for an address.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import number_array, numbers_of, string_array
from sft_shards.formats.columnar import prefix_sums
from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import MASK_DTYPE, SPLITS, FileInfo, IndexedWriter, token_dtype
from sft_shards.formats.shards.contents import open_inside
from sft_shards.formats.shards.files import sha256_file, sync
from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.formats.shards.rows import TURNS, read_rows
from sft_shards.formats.shards.schema import SchemaError, build, parse
from sft_shards.preprocess.pipeline.batch import Batch, Reject, TrainedTurns
from sft_shards.preprocess.tasks.digests import Digests
from sft_shards.preprocess.tasks.workdir import StagedShard

KINDS = ("tokens", "loss_mask")
ROWS = "rows.parquet"


class ShardWriter:
    """Writes one shard of one split: tokens, loss masks, and the record that each sequence came from."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.tokens = IndexedWriter(folder / KINDS[0], token_dtype(vocab_size), limit=vocab_size)
        self.loss_mask = IndexedWriter(folder / KINDS[1], MASK_DTYPE, limit=2)
        self.records = array("q")
        self.trained = array("q")
        self.turns: list[TrainedTurns] = []

    def append(self, batch: Batch) -> None:
        """Add the sequences of a batch, all of which are of this split."""
        self.tokens.append(batch.ids, batch.lengths)
        self.loss_mask.append(batch.loss_mask, batch.lengths)
        self.records.frombytes(batch.records.tobytes())
        self.trained.frombytes(batch.trained.tobytes())
        if batch.turns is not None:
            self.turns.append(batch.turns)

    def close(self, source: str) -> StagedShard:
        """Finish the files, and return the facts of the shard."""
        self.tokens.close()
        self.loss_mask.close()
        lengths = np.frombuffer(self.tokens.lengths, dtype=np.int32)
        trained = np.frombuffer(self.trained, dtype=np.int64)
        turns = TrainedTurns.concatenate(self.turns) if self.turns else None
        write_rows(self.folder / ROWS, source, np.frombuffer(self.records, dtype=np.int64), lengths, trained, turns)
        files = {}
        for kind, writer in zip(KINDS, (self.tokens, self.loss_mask), strict=True):
            for suffix, digest in writer.sha256.items():
                size = (self.folder / (kind + suffix)).stat().st_size
                files[kind + suffix] = FileInfo(bytes=size, sha256=digest)
        return StagedShard(
            sequences=len(lengths),
            tokens=self.tokens.items,
            trained_tokens=int(trained.sum()),
            longest=int(lengths.max()),
            files=files,
        )

    def discard(self) -> None:
        """Close and remove what was written."""
        self.tokens.discard()
        self.loss_mask.discard()


class TaskWriter:
    """Writes everything that one task leaves in its folder, but the receipt.

    Args:
        source: path of the source as it is published.
    """

    def __init__(self, folder: Path, source: str, vocab_size: int) -> None:
        self.folder = folder
        self.source = source
        self.vocab_size = vocab_size
        self.shards: dict[str, ShardWriter] = {}
        self._digests: list[Digests] = []
        self._rejects = open(folder / REJECTS, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def append(self, batch: Batch) -> None:
        """Add the sequences of a batch to the shards of their splits, and its rejects to the rejects."""
        for number in np.unique(batch.splits):
            split = SPLITS[number]
            if split not in self.shards:
                self.shards[split] = ShardWriter(self.folder / split, self.vocab_size)
            self.shards[split].append(batch.of_split(split))
        self.reject(batch.rejects)
        if len(batch.digests):
            self._digests.append(Digests(records=batch.records, splits=batch.splits, digests=batch.digests))

    def reject(self, rejects: Iterable[Reject]) -> None:
        """Add records that were left out to `rejects.jsonl`."""
        for reject in rejects:
            self._rejects.write(reject_line(self.source, reject.record, reject.reason, reject.detail))

    def close(self) -> dict[str, StagedShard]:
        """Finish all files, and return the facts of each shard by split."""
        self._rejects.flush()
        os.fsync(self._rejects.fileno())
        self._rejects.close()
        if self._digests:
            Digests.concatenate(self._digests).save(self.folder)
        return {split: self.shards[split].close(self.source) for split in SPLITS if split in self.shards}

    def discard(self) -> None:
        """Close the files, and ignore errors of a disk that is full: another error is on its way already."""
        for closing in (self._rejects.close, *(shard.discard for shard in self.shards.values())):
            try:
                closing()
            except OSError:
                continue


@dataclass(frozen=True, kw_only=True)
class RejectLine:
    """A line of `rejects.jsonl`."""

    source: str
    """Path of the source as it is published."""
    record: int
    """Number of the record in its source; in a task's folder, in the task's part."""
    reason: str
    detail: str


def reject_line(source: str, record: int, reason: str, detail: str) -> str:
    """Format a line of `rejects.jsonl`."""
    value = {"source": source, "record": record, "reason": reason, "detail": detail}
    return json.dumps(value, ensure_ascii=False) + "\n"


def read_rejects(directory: Path, name: str = REJECTS) -> Iterator[RejectLine]:
    """Read a `rejects.jsonl` line by line.

    Args:
        name: its path below `directory`.

    Raises:
        DataError: a line is not what `reject_line` writes, or the file is a link.
        FileNotFoundError: there is none.
    """
    with open_inside(directory, name) as file:
        for number, line in enumerate(file, 1):
            try:
                yield build(RejectLine, parse(line))
            except SchemaError as error:
                raise DataError(
                    f"{directory / name}: line {number} is not a record that was left out ({error})"
                ) from None


def write_rows(
    path: Path,
    source: str,
    records: NDArray[np.int64],
    lengths: NDArray[np.int32],
    trained: NDArray[np.int64],
    turns: TrainedTurns | None = None,
) -> None:
    """Write a shard's `rows` file: a row per sequence with its source, record number, tokens and trained tokens.

    It is read-only and durable then.

    Args:
        records: int64[S].
        lengths: int32[S], tokens of each sequence.
        trained: int64[S], tokens of each that carry loss.
        turns: which turns each sequence trains, where conversations are unrolled (default: there is no such column).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {} if turns is None else {TURNS: _as_lists(turns)}
    table = pa.table(
        {
            "source": pa.DictionaryArray.from_arrays(
                number_array(np.zeros(len(lengths), dtype=np.int32)), string_array([source])
            ),
            "record": number_array(records),
            "tokens": number_array(lengths.astype(np.int32)),
            "trained_tokens": number_array(trained.astype(np.int32)),
            **columns,
        }
    )
    with open(path, "xb") as file:
        pq.write_table(table, file)
        sync(file, read_only=True)


def _as_lists(turns: TrainedTurns) -> Any:
    import pyarrow as pa

    return pa.ListArray.from_arrays(number_array(turns.offsets.astype(np.int32)), number_array(turns.numbers))


def turns_of(table: Any) -> TrainedTurns | None:
    """Return which turns the sequences of a rows table train; None where it does not say."""
    if TURNS not in table.column_names:
        return None
    column = table[TURNS].combine_chunks()
    lengths = numbers_of(column.value_lengths())
    return TrainedTurns(numbers=numbers_of(column.flatten()), offsets=prefix_sums(lengths.astype(np.int64)))


def shift_rows(staged: Path, target: Path, base: int, *, root: Path, count: int) -> FileInfo:
    """Write a `rows` file anew with `base` added to its record numbers, and return its size and hash.

    Args:
        count: rows that it must have.
        root: the directory that `staged` lies in, below which no link is followed.
    """
    import pyarrow as pa

    try:
        table = read_rows(staged, root=root, count=count)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{staged}: not a readable rows file ({reason}); make its directory again") from None
    source = table["source"].combine_chunks().dictionary[0].as_py() if table.num_rows else ""
    columns = [numbers_of(table[name]) for name in ("record", "tokens", "trained_tokens")]
    write_rows(target, source, columns[0] + base, columns[1], columns[2], turns_of(table))
    return FileInfo(bytes=target.stat().st_size, sha256=sha256_file(target))
