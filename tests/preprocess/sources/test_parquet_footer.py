"""What the footer says is what pyarrow shows of it, and a damaged one is an error with the file's name, never the end."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft_shards.preprocess.sources import PartReader, cut, find_sources, parquet_footer, whole_of
from sft_shards.preprocess.sources.parquet_footer import column_chunks

TEXT = ["some text", "some text", None] * 500
TABLE = pa.table(
    {
        "text": TEXT,
        "messages": [[{"role": "user", "content": text}] for text in TEXT],
        "number": range(len(TEXT)),
        "fixed": pa.array([b"abcd"] * len(TEXT), pa.binary(4)),
    }
)
# Changes a byte of a file's footer at a time and reads it as a job does: what ends the process ends this one.
READ_DAMAGED = """
import sys
from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources import PartReader, find_sources, whole_of
path, good = sys.argv[1], open(sys.argv[1], "rb").read()
begin = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
read = 0
for place in range(begin, len(good)):
    for value in {0, 0xFF, good[place] ^ 1, good[place] ^ 0x10} - {good[place]}:
        print(place, value, flush=True)
        with open(path, "wb") as file:
            file.write(good[:place] + bytes([value]) + good[place + 1 :])
        try:
            [source] = find_sources([path])
            for batch in PartReader(source, whole_of(source)).batches():
                read += len(batch)
        except (DataError, RecordError) as error:
            assert path in str(error) and "\\n" not in str(error), error
print("read", read)
"""


@pytest.mark.unit
@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"compression": "zstd", "row_group_size": 700}])
def test_it_is_what_pyarrow_shows(tmp_path, options):
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, **options)
    metadata = pq.ParquetFile(path).metadata
    with open(path, "rb") as file:
        found = column_chunks(file)
    assert len(found) == metadata.num_row_groups
    for number, columns in enumerate(found):
        group = metadata.row_group(number)
        assert len(columns) == group.num_columns
        for place, column in enumerate(columns):
            shown = group.column(place)
            assert column.path == shown.path_in_schema
            assert (column.physical_type == parquet_footer.BYTE_ARRAY) == (shown.physical_type == "BYTE_ARRAY")
            fixed = parquet_footer.FIXED_LEN_BYTE_ARRAY
            assert (column.physical_type == fixed) == (shown.physical_type == "FIXED_LEN_BYTE_ARRAY")
            dictionary = parquet_footer.RLE_DICTIONARY
            assert (dictionary in column.encodings) == ("RLE_DICTIONARY" in shown.encodings)
            assert column.values == shown.num_values
            assert (column.stored, column.size) == (shown.total_compressed_size, shown.total_uncompressed_size)
            places = [place for place in (shown.data_page_offset, shown.dictionary_page_offset) if place is not None]
            assert column.first_page == min(places)


@pytest.mark.unit
def test_the_parts_of_a_file_share_what_its_footer_says_and_another_file_has_its_own(tmp_path, monkeypatch):
    parsed = []

    class Counting(parquet_footer.ThriftReader):
        def __init__(self, footer):
            parsed.append(len(footer))
            super().__init__(footer)

    monkeypatch.setattr(parquet_footer, "ThriftReader", Counting)
    parquet_footer._parsed.cache_clear()
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=500)
    (source,) = find_sources([str(path)])
    parts = cut(source, 1)
    rows = [row["number"] for part in parts for batch in PartReader(source, part).batches() for _, row in batch]
    assert rows == list(range(len(TEXT)))
    assert len(parts) == 3
    assert len(parsed) == 1
    pq.write_table(TABLE.slice(0, 600), path, row_group_size=500)
    (source,) = find_sources([str(path)])
    assert sum(len(batch) for batch in PartReader(source, whole_of(source)).batches()) == 600
    assert len(parsed) == 2


@pytest.mark.process
def test_no_byte_of_a_footer_ends_the_process(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"instruction": ["a", "b"] * 3, "output": ["c"] * 6}), path)
    done = subprocess.run([sys.executable, "-c", READ_DAMAGED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"byte and value {done.stdout.splitlines()[-1:]}\n{done.stderr[-2000:]}"
    assert done.stdout.splitlines()[-1].startswith("read ")
