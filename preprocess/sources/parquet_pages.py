"""The headers of the pages of a Parquet file, read without decompressing a page.

A page of a few bytes can decompress to gigabytes, or hold billions of values of a column that is all the same, and the
footer need not say so: what pyarrow allocates follows from the header of each page (`PageHeader`, see `thrift`), of
which three numbers are wanted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from sft_shards.preprocess.sources.parquet_footer import ColumnChunk
from sft_shards.preprocess.sources.thrift import ThriftError, ThriftReader

HEADER = 1 << 16
"""Bytes that a header may have; it may hold the smallest and the largest value of its page."""


@dataclass(frozen=True, kw_only=True)
class PageHeader:
    """What a page holds."""

    size: int
    """Bytes of its contents, decompressed."""
    stored: int
    """Bytes of its contents in the file."""
    values: int
    """Values of its column, nulls included; 0 for a page of a dictionary or an index."""


def page_headers(file: IO[bytes], column: ColumnChunk) -> Iterator[PageHeader]:
    """Yield the header of each page of a column chunk.

    Args:
        file: the Parquet file.
        column: the column chunk.

    Raises:
        ThriftError: a header is damaged, or its page leads out of the file.
    """
    begin = column.first_page
    end = begin + column.stored
    while begin < end:
        file.seek(begin)
        reader = ThriftReader(file.read(HEADER))
        fields = reader.struct()
        size, stored = (fields.get(number) for number in (2, 3))
        if not isinstance(size, int) or not isinstance(stored, int) or size < 0 or stored < 0:
            raise ThriftError("describes a page without size")
        data = fields.get(5, fields.get(8, {}))
        values = data.get(1, 0) if isinstance(data, dict) else -1
        if not isinstance(values, int) or values < 0:
            raise ThriftError("describes a page without a number of values")
        yield PageHeader(size=size, stored=stored, values=values)
        begin += reader.place + stored
