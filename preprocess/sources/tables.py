"""Parquet files and Arrow files (of a saved `datasets` folder): records as rows of columns, some at a time.

Rows come in slices of bounded size, because one row may be a conversation of a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.arrow_arrays import number_array
from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources.detect import FileHead
from sft_shards.preprocess.sources.partition import Part, parts_of_units
from sft_shards.preprocess.sources.raw_records import RawBatch, TableBatch
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import Progress

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 14
"""The most rows in a slice."""
SLICE = 1 << 22
"""Bytes in memory that a slice of rows should stay below."""
ARROW_FILE = b"ARROW1"
"""How an Arrow file begins that has an index of its record batches."""
ARROW_STREAM = b"\xff\xff\xff\xff"
"""How one begins that has none."""


class Table:
    """What Parquet and Arrow files have in common: row groups or record batches (units), between which they are cut."""

    name: str
    compressible = False

    def keeps_parts_when_appended(self, source: Source) -> bool:
        """Return False: a table is written as a whole."""
        return False

    def whole(self, source: Source) -> Part:
        """Return all of the file as one part.

        Raises:
            DataError: the file is damaged.
        """
        return Part(end=source.bytes, last=len(self._checked_sizes(source)))

    def cut(self, source: Source, target: int) -> list[Part]:
        """Cut between row groups or record batches. Reads headers only.

        Raises:
            DataError: the file is damaged.
        """
        return parts_of_units(self._checked_sizes(source), source.bytes, target)

    def read(self, source: Source, part: Part, progress: Progress) -> Iterator[RawBatch]:
        """Yield the rows of a part in slices.

        Raises:
            DataError: the file is damaged.
        """
        import pyarrow as pa

        number = 0
        try:
            for batch in self._record_batches(source.file, part.first, part.last):
                step = max(1, min(ROWS, SLICE * batch.num_rows // max(batch.nbytes, 1)))
                for begin in range(0, batch.num_rows, step):
                    for rows in _valid_rows(number, batch.slice(begin, step)):
                        yield rows
                        number += len(rows)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{source.path}: damaged after record {number - 1} ({_one_line(error)})") from None

    def _checked_sizes(self, source: Source) -> list[int]:
        import pyarrow as pa

        try:
            return self._unit_sizes(source.file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{source.path}: damaged {self.name} file ({_one_line(error)})") from None

    def _unit_sizes(self, path: str) -> list[int]:
        """Return the bytes in memory of each row group or record batch."""
        raise NotImplementedError

    def _record_batches(self, path: str, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Yield the contents of the row groups or record batches from `first` up to `last` (exclusive)."""
        raise NotImplementedError


class Parquet(Table):
    """A Parquet file, cut between row groups."""

    name = "parquet"
    suffixes: tuple[str, ...] = (".parquet",)

    def matches(self, head: FileHead) -> bool:
        """Return whether the file begins with Parquet's magic bytes."""
        return head.data.startswith(b"PAR1")

    def _unit_sizes(self, path: str) -> list[int]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
            return [group.total_byte_size for group in groups]

    def _record_batches(self, path: str, first: int, last: int) -> Iterator[Any]:
        import pyarrow.parquet as pq

        # Without pre-buffering and with a small buffer, pages are read one by one and not a row group at a time.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            for number in range(first, last):
                group = file.metadata.row_group(number)
                rows = max(1, min(ROWS, SLICE * group.num_rows // max(group.total_byte_size, 1)))
                yield from file.iter_batches(batch_size=rows, row_groups=[number], use_threads=False)


class Arrow(Table):
    """An Arrow file or stream, cut between record batches."""

    name = "arrow"
    suffixes: tuple[str, ...] = (".arrow",)

    def matches(self, head: FileHead) -> bool:
        """Return whether the file begins with the magic bytes of either form."""
        return head.data.startswith((ARROW_FILE, ARROW_STREAM))

    def _unit_sizes(self, path: str) -> list[int]:
        return [batch.nbytes for batch in self._record_batches(path, 0, None)]

    def _record_batches(self, path: str, first: int, last: int | None) -> Iterator[Any]:
        """Yield record batches. The file is mapped and not copied, so those passed over cost nothing."""
        import pyarrow as pa

        with pa.memory_map(path) as file:
            if file.read(len(ARROW_FILE)) == ARROW_FILE:
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


def _valid_rows(first: int, batch: pa.RecordBatch) -> Iterator[RawBatch]:
    """Yield rows, halved until those with a text that is not UTF-8 are alone: writers do not check."""
    import pyarrow as pa

    own = batch.take(
        number_array(np.arange(batch.num_rows))
    )  # a slice of a list column still has the items of all lists
    try:
        own.validate(full=True)
        yield TableBatch(first, own)
    except pa.ArrowInvalid:
        if batch.num_rows == 1:
            yield RawBatch(first, [RecordError("broken_utf8", "a text of the row is not UTF-8")])
            return
        half = batch.num_rows // 2
        yield from _valid_rows(first, batch.slice(0, half))
        yield from _valid_rows(first + half, batch.slice(half))


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
