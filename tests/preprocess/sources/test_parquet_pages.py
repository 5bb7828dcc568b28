"""Headers of pages say what pyarrow says of their columns, and a page that is too large is refused before it is read."""

import datetime
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.sources import PartReader, find_sources, tables, whole_of
from sft_shards.preprocess.sources.parquet_footer import ColumnChunk, column_chunks
from sft_shards.preprocess.sources.parquet_pages import page_headers
from sft_shards.preprocess.sources.thrift import ThriftError

pytestmark = pytest.mark.unit

COUNT = 5000
TABLE = pa.table(
    {
        "text": [f"text {number}" * (number % 9) or None for number in range(COUNT)],
        "same": ["the same"] * COUNT,
        "messages": [[{"role": "user", "content": "x"}] * (number % 5) for number in range(COUNT)],
        "number": range(COUNT),
        "yes": [True] * COUNT,
        "day": [datetime.date(2020, 1, 1)] * COUNT,
    }
)


def chunks(path):
    with open(path, "rb") as file:
        return [column for group in column_chunks(file) for column in group]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"write_statistics": False}, {"write_page_index": True}]
)
def test_headers_add_up_to_their_column(tmp_path, version, compression, options):
    path = tmp_path / "a.parquet"
    sizes = {"data_page_size": 2000, "row_group_size": 1700, "write_page_checksum": True}
    pq.write_table(TABLE, path, data_page_version=version, compression=compression, **sizes, **options)
    with open(path, "rb") as file:
        for column in chunks(path):
            headers = list(page_headers(file, column))
            assert sum(page.values for page in headers) == column.values
            assert sum(page.stored for page in headers) < column.stored
            headed = column.stored - sum(page.stored for page in headers)
            assert column.size - sum(page.size for page in headers) == headed


def read(path):
    [source] = find_sources([str(path)])
    return [value for batch in PartReader(source, whole_of(source)).batches() for _, value in batch]


def test_a_large_page_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PAGE", 100_000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["x" * 99_000]}), path)
    assert read(path) == [{"a": "x" * 99_000}]
    pq.write_table(pa.table({"a": ["x" * 101_000]}), path)
    with pytest.raises(DataError, match=r"a\.parquet: .*column a: a page of 101,004 bytes, more than 100,000; write"):
        read(path)


def test_the_footer_need_not_say_so(tmp_path, monkeypatch):
    """The header of a page is given another size; the footer stays as it was."""
    monkeypatch.setattr(tables, "PAGE", 500_000)
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"a": ["x" * 99_996]}), path, use_dictionary=False, write_statistics=False, compression="zstd"
    )
    [column] = chunks(path)
    with open(path, "rb") as file:
        [page] = page_headers(file, column)
    assert page.size > 100_000
    number = 2 * page.size
    stored = bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14])
    data = path.read_bytes()
    assert data.count(stored) == 1
    path.write_bytes(data.replace(stored, b"\xfe\xff\x7f"))
    assert chunks(path)[0].size < 200_000
    with pytest.raises(DataError, match="a page of 1,048,575 bytes, more than 500,000"):
        read(path)


CHUNK = ColumnChunk(path="a", physical_type=6, encodings=(), values=1, first_page=0, stored=1 << 40, size=1)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00",  # nothing
        b"\x15\x00\x15\x01\x15\x00\x00",  # a negative size
        b"\x15" + b"\xff" * 20,  # a number without end
        b"\x1c" * 100,  # structs without end
        b"\x19\x1c" * 100,
        b"\x18\xff\xff\xff\xff\x0f",  # a text without end
        b"\x19\xf8\xff\xff\xff\xff\x0f",  # a list without end
        b"\x1d\x00",  # a kind that there is not
    ],
)
def test_a_damaged_header_is_an_error(header):
    with pytest.raises(ThriftError):
        list(page_headers(io.BytesIO(header), CHUNK))
