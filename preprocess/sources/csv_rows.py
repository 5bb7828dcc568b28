"""CSV and TSV files: a record per row, every cell a text.

They are read by Python's own reader: every cell stays as it stands in the file, where pyarrow would guess types.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

from sft_shards.formats.arrow_arrays import string_array
from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources.detect import FileHead
from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.raw_records import RawBatch, TableBatch
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import MAX_RECORD, Progress, open_contents, without_compression_suffix
from sft_shards.preprocess.sources.tables import ROWS, SLICE
from sft_shards.preprocess.sources.whole_file import WholeFile


class Csv(WholeFile):
    """A CSV or TSV file whose first row names the columns.

    It is one part: in its middle nothing tells whether a line ends a row or stands in a cell.
    """

    name = "csv"
    suffixes: tuple[str, ...] = (".csv", ".tsv")
    compressible = True

    def matches(self, head: FileHead) -> bool:
        """Return whether the file is called so: its contents cannot tell."""
        return head.uncompressed_name.endswith(self.suffixes)

    def read(self, source: Source, part: Part, progress: Progress) -> Iterator[RawBatch]:
        """Yield the rows in slices.

        Raises:
            DataError: a quote that is never closed.
        """
        with open_contents(source) as stream:
            yield from _rows(stream, source)


def _rows(stream: IO[bytes], source: Source) -> Iterator[RawBatch]:
    csv.field_size_limit(MAX_RECORD)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    delimiter = "\t" if without_compression_suffix(source.path).endswith(".tsv") else ","
    rows = csv.DictReader(text, delimiter=delimiter, strict=True)
    batch: list[dict[str, str]] = []
    number = held = 0
    try:
        for row in rows:
            broken = _row_error(row)
            if broken is None:
                batch.append(row)
                held += sum(map(len, row.values()))
            if broken is not None or len(batch) >= ROWS or held >= SLICE:
                yield _as_table(number, batch)
                number += len(batch)
                batch, held = [], 0
            if broken is not None:
                yield RawBatch(number, [broken])
                number += 1
    except csv.Error as error:
        raise DataError(f"{source.path}: record {number + len(batch)} is broken CSV ({error}); mend it") from None
    yield _as_table(number, batch)


def _as_table(first: int, rows: list[dict[str, str]]) -> RawBatch:
    import pyarrow as pa

    names = list(rows[0]) if rows else []
    if any("\udc80" <= letter <= "\udcff" for letter in "".join(names)):  # the first line is not UTF-8
        return RawBatch(first, rows)
    if not names:
        return RawBatch(first)
    return TableBatch(first, pa.record_batch([string_array(row[name] for row in rows) for name in names], names))


def _row_error(row: dict[Any, Any]) -> RecordError | None:
    if None in row or None in row.values():
        return RecordError("broken_csv", "the row has another number of cells than the first one")
    try:
        "".join(row.values()).encode("utf-8")
    except UnicodeEncodeError:
        return RecordError("broken_utf8", "a cell is not UTF-8")
    return None
