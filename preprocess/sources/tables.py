"""Parquet files and Arrow files (of a saved `datasets` folder): records as rows of columns, some at a time.

Rows come in slices of bounded size, because one row may be a conversation of a megabyte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sft_shards.formats.errors import DataError, first_line
from sft_shards.preprocess.sources.arrow_messages import decompressed_sizes
from sft_shards.preprocess.sources.detect import FileHead
from sft_shards.preprocess.sources.parquet_footer import (
    BYTE_ARRAY,
    DELTA_BYTE_ARRAY,
    FIXED_LEN_BYTE_ARRAY,
    PLAIN_DICTIONARY,
    RLE_DICTIONARY,
    ColumnChunk,
    column_chunks,
)
from sft_shards.preprocess.sources.parquet_pages import page_headers
from sft_shards.preprocess.sources.partition import Part, parts_of_units
from sft_shards.preprocess.sources.raw_records import RawBatch
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import Progress
from sft_shards.preprocess.sources.table_rows import ROWS, SLICE, VALUES, slices
from sft_shards.preprocess.sources.thrift import ThriftError

if TYPE_CHECKING:
    import pyarrow as pa

PAGE = 1 << 28
"""Bytes that a page may have decompressed; the usual ones have one million, DuckDB's up to a hundred."""
COMPRESSED_BATCH = 1 << 29
"""Bytes that a compressed record batch of an Arrow file may have decompressed; others are read where they lie."""
BATCH_VALUES = 1 << 20
"""Values of one column that are read together."""
BATCH_BYTES = 1 << 26
"""Bytes that are read together of a column whose values may be made of the values before them."""
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

    def read(self, source: Source, part: Part, progress: Progress, max_record_bytes: int) -> Iterator[RawBatch]:
        """Yield the rows of a part in slices.

        Raises:
            DataError: the file is damaged.
        """
        import pyarrow as pa

        number = 0
        try:
            for batch in self._record_batches(source.file, part.first, part.last):
                for rows in slices(number, batch, max_record_bytes):
                    yield rows
                    number += len(rows)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            where = f"after record {number - 1}" if number else "in its first records"
            raise DataError(f"{source.path}: damaged {where} ({first_line(error)})") from None

    def _checked_sizes(self, source: Source) -> list[int]:
        import pyarrow as pa

        try:
            return self._unit_sizes(source.file)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source.path}: damaged {self.name} file ({first_line(error)})") from None

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
            groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
            return [group.total_byte_size for group in groups]

    def _record_batches(self, path: str, first: int, last: int) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            metadata = file.metadata
        groups = _column_chunks(path, metadata, first, last)
        in_dictionaries = sorted({column.path for columns in groups for column in columns if _in_dictionary(column)})
        # Without pre-buffering and with a small buffer, pages are read one by one and not a row group at a time.
        with pq.ParquetFile(
            path, metadata=metadata, read_dictionary=in_dictionaries, pre_buffer=False, buffer_size=1 << 20
        ) as file:
            for number, columns in enumerate(groups, first):
                _check_pages(path, metadata, number, columns)
                rows = _rows_together(metadata.row_group(number), columns)
                yield from file.iter_batches(rows, row_groups=[number], use_threads=False)


def _column_chunks(path: str, metadata: Any, first: int, last: int) -> Sequence[Sequence[ColumnChunk]]:
    """Return the column chunks of some row groups, which must be those of the schema that pyarrow read."""
    import pyarrow as pa

    schema = [metadata.schema.column(place).path for place in range(len(metadata.schema))]
    with open(path, "rb") as file:
        try:
            groups = column_chunks(file)[first:last]
        except ThriftError as error:
            raise pa.ArrowInvalid(f"the footer {error}") from None
    for number, columns in enumerate(groups, first):
        if [column.path for column in columns] != schema:
            raise pa.ArrowInvalid(f"row group {number} has other columns than the schema")
    return groups


def _check_batches(path: str) -> None:
    """Make sure that no record batch of an Arrow file is large decompressed.

    Raises:
        pyarrow.ArrowInvalid: one is, or the file is damaged.
    """
    import pyarrow as pa

    with pa.memory_map(path) as file:
        indexed = file.read(len(ARROW_FILE)) == ARROW_FILE
        try:
            for number, size in enumerate(decompressed_sizes(file, indexed=indexed)):
                if size > COMPRESSED_BATCH:
                    most = f"more than {COMPRESSED_BATCH:,}; write smaller record batches"
                    raise pa.ArrowInvalid(f"message {number}: {size:,} bytes decompressed, {most}")
        except struct.error:
            raise pa.ArrowInvalid("the metadata of a message is damaged") from None


def _in_dictionary(column: ColumnChunk) -> bool:
    """Return whether texts stand in a dictionary, which is then read as such."""
    encoded = {PLAIN_DICTIONARY, RLE_DICTIONARY} & {*column.encodings}
    return column.physical_type == BYTE_ARRAY and bool(encoded)


def _check_pages(path: str, metadata: Any, number: int, columns: Sequence[ColumnChunk]) -> None:
    """Make sure that no page of a row group is large, and that all values of its lists would fit into one row.

    Args:
        metadata: what pyarrow read of the file.
        number: of the row group.
        columns: of the row group.

    Raises:
        pyarrow.ArrowInvalid: one is, they do not, or a header is damaged.
    """
    import pyarrow as pa

    in_lists = 0
    with open(path, "rb") as file:
        for place, column in enumerate(columns):
            repeated = metadata.schema.column(place).max_repetition_level > 0
            where = f"row group {number}, column {column.path}"
            try:
                for page in page_headers(file, column):
                    in_lists += page.values * repeated
                    if page.size > PAGE:
                        raise pa.ArrowInvalid(
                            f"{where}: a page of {page.size:,} bytes, more than {PAGE:,}; write smaller pages"
                        )
                    if in_lists > VALUES:
                        raise pa.ArrowInvalid(
                            f"row group {number}: more than {VALUES:,} values in lists; write smaller row groups"
                        )
            except ThriftError as error:
                raise pa.ArrowInvalid(f"{where}: a header {error}") from None


def _rows_together(group: Any, columns: Sequence[ColumnChunk]) -> int:
    """Return how many rows of a row group are read together, so that no column takes much memory."""
    rows = SLICE * group.num_rows // max(group.total_byte_size, 1)
    for column in columns:
        rows = min(rows, BATCH_VALUES * group.num_rows // max(column.values, 1))
        # A value of these may be as long as the whole column and take a few bytes in the file.
        if column.physical_type == FIXED_LEN_BYTE_ARRAY or DELTA_BYTE_ARRAY in column.encodings:
            rows = min(rows, BATCH_BYTES // max(column.size, 1))
    return int(max(1, min(ROWS, rows)))


class Arrow(Table):
    """An Arrow file or stream, cut between record batches."""

    name = "arrow"
    suffixes: tuple[str, ...] = (".arrow",)

    def matches(self, head: FileHead) -> bool:
        """Return whether the file begins with the magic bytes of either form."""
        return head.data.startswith((ARROW_FILE, ARROW_STREAM))

    def _unit_sizes(self, path: str) -> list[int]:
        _check_batches(path)
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
