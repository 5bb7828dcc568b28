"""CSV and TSV files: a record per row, every cell a text.

Rows are cut by bytes first, so that one without end cannot fill the memory, and then read by Python's own reader: every
cell stays as it stands in the file, where pyarrow would guess types.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence

from sft_shards.formats.arrow_arrays import string_array
from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources.detect import FileHead
from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.raw_records import RawBatch, TableBatch, too_large
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import (
    BLOCK,
    BOM,
    MARGIN,
    Progress,
    open_contents,
    without_compression_suffix,
)
from sft_shards.preprocess.sources.table_rows import ROWS, SLICE
from sft_shards.preprocess.sources.whole_file import WholeFile

COLUMNS = 10_000
"""The most columns of a file: each costs time and memory for every slice of rows."""


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

    def read(self, source: Source, part: Part, progress: Progress, max_record_bytes: int) -> Iterator[RawBatch]:
        """Yield the rows in slices.

        Raises:
            DataError: a quote that is never closed, or a first row that names no columns.
        """
        delimiter = "\t" if without_compression_suffix(source.path).endswith(".tsv") else ","
        with open_contents(source) as stream:
            found = row_texts(iter(lambda: bytes(stream.read(BLOCK)), b""), delimiter.encode(), max_record_bytes)
            yield from _Reading(source, delimiter).batches(found)


def row_texts(pieces: Iterable[bytes], delimiter: bytes, max_record_bytes: int) -> Iterator[bytes | RecordError]:
    r"""Yield the bytes of each row with the end of its line, as Python's `csv` cuts them; blank lines too.

    A quote at the beginning of a cell opens a text in which everything is text up to the next quote that is not
    doubled. A quote anywhere else is a character like others. In `a,"b` ⏎ `c",d"` ⏎ the first end of a line stands in
    a cell.

    Args:
        pieces: the file, one after the other.
        max_record_bytes: a longer row is a RecordError (`too_large`), and its bytes are not kept.
    """
    marks = (b"\n", b"\r", delimiter + b'"')
    rest, first, quoted = b"", True, False
    row: list[bytes] = []
    held = 0
    done = False
    pieces = iter(pieces)
    while not done:
        piece = next(pieces, b"")
        done = not piece
        data = rest + piece
        if first and len(data) >= len(BOM):
            data, first = data.removeprefix(BOM), False
        # The last byte waits for the one behind it: "" in a cell, CR LF, a quote behind a delimiter.
        limit = len(data) if done else len(data) - 1
        begin = place = 0
        nearest = _Nearest(data, marks)
        at_start = not held
        while place < limit:
            if at_start and data[place] == 0x22:
                quoted, place, at_start = True, place + 1, False
                continue
            at_start = False
            if quoted:
                place = data.find(b'"', place)
                if place < 0 or place >= limit:
                    place = limit
                elif data[place + 1 : place + 2] == b'"':
                    place += 2
                else:
                    quoted, place = False, place + 1
                continue
            at = nearest(place)
            if at >= limit:
                place = limit
            elif data[at : at + 1] == delimiter:
                quoted, place = True, at + 2
            else:
                end = at + 2 if data[at : at + 2] == b"\r\n" else at + 1
                held += end - begin
                kept = held <= max_record_bytes + MARGIN
                yield b"".join((*row, data[begin:end])) if kept else too_large(max_record_bytes)
                row, held, begin, place, at_start = [], 0, end, end, True
        place = max(place, limit)
        held += place - begin
        if held > max_record_bytes + MARGIN:
            row = []
        elif place > begin:
            row.append(data[begin:place])
        rest = data[place:]
    if held:
        yield b"".join(row) if held <= max_record_bytes + MARGIN else too_large(max_record_bytes)


class _Nearest:
    """Finds the next of several marks in some bytes; each byte is looked at once for each mark."""

    def __init__(self, data: bytes, marks: Sequence[bytes]) -> None:
        self._data, self._marks = data, marks
        self._found = [-1] * len(marks)

    def __call__(self, place: int) -> int:
        """Return where the next mark stands, at `place` or behind it; the length of the bytes where there is none."""
        for number, mark in enumerate(self._marks):
            if self._found[number] < place:
                found = self._data.find(mark, place)
                self._found[number] = found if found >= 0 else len(self._data)
        return min(self._found)


class _Reading:
    """Reads the rows of one file, whose first row names the columns."""

    def __init__(self, source: Source, delimiter: str) -> None:
        self._source, self._delimiter = source, delimiter
        self._names: list[str] | None = None
        self._number = 0
        """Of the next record."""

    def batches(self, rows: Iterable[bytes | RecordError]) -> Iterator[RawBatch]:
        """Yield the records, some megabytes at a time; a row that cannot be read is a batch of its own."""
        csv.field_size_limit(sys.maxsize)  # the rows are bounded
        chunk: list[list[str]] = []
        held = 0
        for row in rows:
            record = self._record(row)
            if record is None:
                continue
            if isinstance(record, list):
                chunk.append(record)
                held += sum(map(len, record))
            if isinstance(record, RecordError) or len(chunk) >= ROWS or held >= SLICE:
                yield self._as_table(chunk)
                chunk, held = [], 0
            if isinstance(record, RecordError):
                yield RawBatch(self._number, [record])
                self._number += 1
        yield self._as_table(chunk)

    def _record(self, row: bytes | RecordError) -> list[str] | RecordError | None:
        """Return the cells of a row, why there are none, or None for a blank line and for the names of the columns."""
        if isinstance(row, RecordError):
            if self._names is None:
                raise DataError(f"{self._source.path}: its first row should name the columns, and is {row.detail}")
            return row
        text = row.decode("utf-8", errors="surrogateescape")
        try:
            cells = next(csv.reader([text], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise DataError(f"{self._source.path}: record {self._number} is broken CSV ({error}); mend it") from None
        if not cells:
            return None
        if self._names is None:
            if len(cells) > COLUMNS:
                raise DataError(f"{self._source.path}: {len(cells):,} columns, more than {COLUMNS:,}; leave some out")
            self._names = cells
            return None
        if len(cells) != len(self._names):
            return RecordError("broken_csv", "the row has another number of cells than the first one")
        if len(set(self._names)) < len(self._names):
            twice = next(name for at, name in enumerate(self._names) if name in self._names[:at])
            return RecordError("duplicate_column", f"two columns are called {twice!r}")
        if not text.isascii() and _has_escapes(text):
            return RecordError("broken_utf8", "a cell is not UTF-8")
        return cells

    def _as_table(self, rows: Sequence[Sequence[str]]) -> RawBatch:
        import pyarrow as pa

        first, names = self._number, self._names or []
        self._number += len(rows)
        if not rows:
            return RawBatch(first)
        if _has_escapes("".join(names)):  # the first line is not UTF-8
            return RawBatch(first, [dict(zip(names, row, strict=True)) for row in rows])
        columns = [string_array(column) for column in zip(*rows, strict=True)]
        return TableBatch(first, pa.record_batch(columns, names))


def _has_escapes(text: str) -> bool:
    """Return whether a decoded text stands for bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
