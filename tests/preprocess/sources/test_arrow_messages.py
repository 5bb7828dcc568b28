"""What compressed buffers say of their size is what pyarrow allocates, and too much is refused before."""

import pyarrow as pa
import pytest

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.sources import PartReader, find_sources, tables, whole_of
from sft_shards.preprocess.sources.arrow_messages import decompressed_sizes

pytestmark = pytest.mark.unit

ROWS = [{"text": f"text {number}" * 50, "number": number, "tags": ["x"] * (number % 3)} for number in range(400)]


def write(path, table, compression, *, indexed):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if indexed else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, make(file, table.schema, options=options) as out:
        out.write_table(table, max_chunksize=150)
    return path


def read(path):
    [source] = find_sources([str(path)])
    return [value for batch in PartReader(source, whole_of(source)).batches() for _, value in batch]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_sizes_are_those_of_the_buffers(tmp_path, compression, indexed):
    table = pa.Table.from_pylist(ROWS)
    table = table.append_column("word", pa.array(["same" * 100] * len(ROWS)).dictionary_encode())
    path = write(tmp_path / "a.arrow", table, compression, indexed=indexed)
    with pa.memory_map(str(path)) as file:
        schema, dictionary, *batches = decompressed_sizes(file, indexed=indexed)
    assert schema == 0
    if compression is None:
        assert dictionary == sum(batches) == 0
    else:
        assert dictionary >= 400
        expected = [batch.get_total_buffer_size() for batch in table.to_batches(max_chunksize=150)]
        assert len(batches) == len(expected) == 3
        assert sum(len(row["text"]) for row in ROWS) < sum(batches) < 2 * sum(expected)
    assert read(path) == table.to_pylist()


@pytest.mark.parametrize("indexed", [False, True])
def test_a_batch_that_becomes_large_is_refused(tmp_path, monkeypatch, indexed):
    path = write(tmp_path / "a.arrow", pa.table({"a": ["x" * 10**6]}), "zstd", indexed=indexed)
    assert path.stat().st_size < 5000
    monkeypatch.setattr(tables, "COMPRESSED_BATCH", 10**5)
    with pytest.raises(DataError, match=r"a\.arrow: .*message 1: 1,000,\d\d\d bytes decompressed, more than 100,000"):
        read(path)
    monkeypatch.setattr(tables, "COMPRESSED_BATCH", 10**7)
    assert read(path) == [{"a": "x" * 10**6}]
