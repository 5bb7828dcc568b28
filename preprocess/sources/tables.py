"""Records out of Parquet, Arrow (a saved `datasets` folder) and CSV, a few rows at a time.

Rows come in slices of bounded size, because one row may be a conversation of a megabyte. CSV is read by Python's own
reader: every cell is text, as it stands there, which pyarrow's guessing of types would change.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources.lines import MAX_RECORD
from sft_shards.preprocess.sources.raw_records import Records, Rows
from sft_shards.preprocess.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 14
"""The most rows in a slice."""
SLICE = 1 << 22
"""Bytes that a slice of rows should stay below, as Arrow holds them."""
FILE_MAGIC = b"ARROW1"


def unit_sizes(source: Source) -> list[int]:
    """Bytes of each row group (uncompressed) or record batch; reads headers only.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if source.kind == "arrow":
            return [batch.nbytes for batch in _arrow_batches(source.file)]
        with pq.ParquetFile(source.file) as file:
            groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
            return [group.total_byte_size for group in groups]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source.path}: damaged {source.kind} file ({_one_line(error)})") from None


def read_units(source: Source, first: int, last: int) -> Iterator[Records]:
    """The rows of some row groups or record batches, numbered from 0, in slices.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa

    number = 0
    try:
        batches = _arrow_batches(source.file, first, last) if source.kind == "arrow" else _groups(source, first, last)
        for batch in batches:
            step = max(1, min(ROWS, SLICE * batch.num_rows // max(batch.nbytes, 1)))
            for begin in range(0, batch.num_rows, step):
                for rows in _sound(number, batch.slice(begin, step)):
                    yield rows
                    number += len(rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source.path}: damaged after record {number - 1} ({_one_line(error)})") from None


def _sound(first: int, batch: pa.RecordBatch) -> Iterator[Records]:
    """Rows, those with a text that is not UTF-8 by themselves: files do not keep anybody from writing one."""
    import pyarrow as pa

    alone = batch.take(pa.array(range(batch.num_rows)))  # a slice of a list column still has all that was in the lists
    try:
        alone.validate(full=True)
        yield Rows(first, alone)
    except pa.ArrowInvalid:
        if batch.num_rows == 1:
            yield Records(first, [RecordError("broken_utf8", "a text of the row is not UTF-8")])
            return
        half = batch.num_rows // 2
        yield from _sound(first, batch.slice(0, half))
        yield from _sound(first + half, batch.slice(half))


def _groups(source: Source, first: int, last: int) -> Iterator[Any]:
    import pyarrow.parquet as pq

    # Without pre-buffering and with a small buffer, pages are read one by one and not a row group at a time.
    with pq.ParquetFile(source.file, pre_buffer=False, buffer_size=1 << 20) as file:
        for group in range(first, last):
            facts = file.metadata.row_group(group)
            rows = max(1, min(ROWS, SLICE * facts.num_rows // max(facts.total_byte_size, 1)))
            yield from file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False)


def _arrow_batches(path: str, first: int = 0, last: int | None = None) -> Iterator[Any]:
    """Record batches of an Arrow file or stream, mapped and not copied: those passed over cost nothing."""
    import pyarrow as pa

    with pa.memory_map(path) as file:
        if file.read(len(FILE_MAGIC)) == FILE_MAGIC:
            reader = pa.ipc.open_file(file)
            for number in range(first, reader.num_record_batches if last is None else last):
                yield reader.get_batch(number)
            return
        file.seek(0)
        for number, batch in enumerate(pa.ipc.open_stream(file)):
            if last is not None and number >= last:
                return
            if number >= first:
                yield batch


def read_csv(stream: IO[bytes], source: Source) -> Iterator[Records]:
    """The rows of a CSV or TSV file as columns of text, numbered from 0, in slices; the first row names the columns.

    Raises:
        DataError: a quote that is never closed.
    """
    csv.field_size_limit(MAX_RECORD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    name = source.path.lower().removesuffix(".gz").removesuffix(".zst")
    rows = csv.DictReader(text, delimiter="\t" if name.endswith(".tsv") else ",", strict=True)
    batch: list[dict[str, str]] = []
    number = held = 0
    try:
        for row in rows:
            broken = _broken(row)
            if broken is None:
                batch.append(row)
                held += sum(map(len, row.values()))
            if broken is not None or len(batch) >= ROWS or held >= SLICE:
                yield _columns(number, batch)
                number += len(batch)
                batch, held = [], 0
            if broken is not None:
                yield Records(number, [broken])
                number += 1
    except csv.Error as error:
        raise DataError(f"{source.path}: record {number + len(batch)} is broken CSV ({error}); mend it") from None
    yield _columns(number, batch)


def _columns(first: int, rows: list[dict[str, str]]) -> Records:
    import pyarrow as pa

    names = list(rows[0]) if rows else []
    if any("\udc80" <= letter <= "\udcff" for letter in "".join(names)):  # the first line is not UTF-8
        return Records(first, rows)
    if not names:
        return Records(first)
    return Rows(first, pa.record_batch([pa.array([row[name] for row in rows]) for name in names], names))


def _broken(row: dict[Any, Any]) -> RecordError | None:
    if None in row or None in row.values():
        return RecordError("broken_csv", "the row has another number of cells than the first one")
    try:
        "".join(row.values()).encode("utf-8")
    except UnicodeEncodeError:
        return RecordError("broken_utf8", "a cell is not UTF-8")
    return None


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
