"""What a record may take is bounded in every kind of file, and so is what is held while a file is read."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.sources import PartReader, cut, find_sources, table_rows, tables
from sft_shards.preprocess.sources.csv_rows import row_texts

pytestmark = pytest.mark.unit

CAP = 1024


def read(path, max_record_bytes=CAP):
    [source] = find_sources([str(path)])
    found = []
    for part in cut(source, 1 << 30):
        for batch in PartReader(source, part, max_record_bytes).batches():
            found += [value for _, value in batch]
    return found


def reasons(found):
    return [one.reason if isinstance(one, RecordError) else "" for one in found]


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "json.gz", "object"])
def test_a_json_text_may_have_as_many_bytes_as_are_allowed(tmp_path, kind):
    texts = [json.dumps({"a": "x" * (size - len('{"a": ""}'))}) for size in (CAP, CAP + 1, 10, CAP * 5000, CAP)]
    path = tmp_path / f"data.{kind}"
    if kind == "object":
        path = tmp_path / "data.json"
        path.write_text(texts[1].replace(":", ":\n", 1))
        assert reasons(read(path)) == ["too_large"]
        return
    text = "\n \n".join(texts) if kind.startswith("jsonl") else "[\n" + " ,\n ".join(texts) + "]"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    assert reasons(read(path)) == ["", "too_large", "", "too_large", ""]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_a_row_of_csv_without_end_is_left_out_and_the_next_one_read(tmp_path, suffix):
    long = CAP * 5000
    rows = ["q,a", "1,2", "x" * long + ",2", '3,"4"', '"' + "x\n" * long + '",2', "5,6", "a," * long, "7,8"]
    text = "\r\n".join(rows).encode()
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    found = read(path)
    assert reasons(found) == ["", "too_large", "", "too_large", "", "too_large", ""]
    assert [one for one in found if isinstance(one, dict)] == [
        {"q": str(number), "a": str(number + 1)} for number in (1, 3, 5, 7)
    ]


@pytest.mark.parametrize("first", ["a," * 5000, ",".join(map(str, range(20_000)))])
def test_a_first_row_without_end_is_refused(tmp_path, first):
    (tmp_path / "a.csv").write_text(f"{first}\n1,2\n")
    with pytest.raises(DataError, match=r"a\.csv: (its first row|20,000 columns)"):
        read(tmp_path / "a.csv", 8192 if first.startswith("a") else 1 << 20)


@given(st.lists(st.sampled_from(["a", ",", '"', "\n", "\r", "\r\n", "é", " "]), max_size=14), st.integers(1, 5))
def test_rows_of_csv_are_cut_as_python_reads_them(letters, step):
    text = "".join(letters)
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return
    raw = text.encode()
    rows = row_texts([raw[at : at + step] for at in range(0, len(raw), step)], b",", CAP)
    assert [row for one in rows for row in csv.reader([one.decode()], strict=True) if row] == expected


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_a_row_of_a_table_counts_decoded(tmp_path, name):
    """Rows of which one is small, one is large, and one refers to the same large text from a dictionary."""
    large, small = "x" * CAP, "y" * (CAP - 100)
    indices = pa.array([0, 1, None, 0, 1], pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array([small, large]))
    table = pa.table({"text": column, "messages": pa.array([MESSAGES] * 4 + [None])})
    path = tmp_path / f"data.{name}"
    if name == "parquet":
        pq.write_table(table, path, store_schema=False)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table)
    found = read(path)
    assert reasons(found) == ["", "too_large", "", "", "too_large"]
    assert found[0] == {"text": small, "messages": MESSAGES}
    assert found[2] == {"text": None, "messages": MESSAGES}


@pytest.mark.parametrize(
    ("values", "kind", "sizes"),
    [
        (["", "abc", None], pa.string(), [8, 11, 8]),
        (["", "é", None], pa.large_string(), [8, 10, 8]),
        (["", "a longer text", None], pa.string_view(), [8, 21, 8]),
        ([["ab", "c"], ["def"], [], None], pa.list_(pa.string()), [27, 19, 8, 8]),
        ([["ab", "c"], None], pa.list_(pa.string(), 2), [27, 24]),
        ([{"a": "xy", "b": 1}, None], pa.struct([("a", pa.string()), ("b", pa.int64())]), [34, 32]),
        ([[("k", 1)], []], pa.map_(pa.string(), pa.int64()), [41, 8]),
        ([None, None], pa.null(), [8, 8]),
        (["ab", None, "ab", ""], pa.dictionary(pa.int8(), pa.string()), [10, 8, 10, 8]),
    ],
)
def test_sizes_of_rows(values, kind, sizes):
    column = pa.array(values, kind)
    assert table_rows.row_sizes(column).tolist() == sizes
    assert table_rows.row_sizes(column.slice(1)).tolist() == sizes[1:]


def test_a_type_whose_size_cannot_be_told_is_refused(tmp_path):
    column = pa.array([["x" * 100]] * 3, pa.list_view(pa.string()))
    path = tmp_path / "a.arrow"
    table = pa.table({"a": column})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    with pytest.raises(DataError, match="list_view"):
        read(path)


def test_values_of_a_table_are_the_ones_that_pyarrow_reads(tmp_path):
    """With and without dictionaries, nested, in slices of few rows."""
    rows = [
        {
            "messages": [{"role": "user", "content": f"Hi {number}" * (number % 7)}] * (number % 4),
            "tags": [["a", None], []] if number % 3 else None,
            "meta": {"n": number, "s": "same", "m": [("k", "v")]},
        }
        for number in range(3000)
    ]
    kind = pa.struct([("n", pa.int64()), ("s", pa.string()), ("m", pa.map_(pa.string(), pa.string()))])
    table = pa.Table.from_pylist(rows)
    table = table.set_column(2, "meta", pa.array([row["meta"] for row in rows], kind))
    for options in ({}, {"use_dictionary": False}, {"row_group_size": 700, "store_schema": False}):
        path = tmp_path / "data.parquet"
        pq.write_table(table, path, **options)
        assert read(path, 1 << 20) == table.to_pylist()


def test_a_row_group_that_may_be_one_row_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "VALUES", 1000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [["x"] * 999, ["y"]], "b": ["x"] * 2}), path)
    assert len(read(path, 1 << 20)) == 2
    pq.write_table(pa.table({"a": [["x"] * 999, ["y"]], "b": [[1], []]}), path)
    with pytest.raises(DataError, match=r"row group 0: more than 1,000 values in lists; write"):
        read(path)


def test_texts_made_of_the_ones_before_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    texts = ["x" * 100_000 + str(number) for number in range(400)]
    pq.write_table(pa.table({"a": texts}), path, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    metadata = pq.ParquetFile(path).metadata
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(tables, "BATCH_BYTES", 1 << 20)
    (columns,) = tables._column_chunks(str(path), metadata, 0, 1)
    assert tables._rows_together(metadata.row_group(0), columns) * 100_000 <= 1 << 20
    assert [row["a"] for row in read(path, 1 << 20)] == texts


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.null(), 1 << 20), pa.struct([("a", pa.null())])])
def test_nulls_without_number_are_refused(tmp_path, kind):
    """An array of nulls has a length and no bytes."""
    nulls = pa.Array.from_buffers(pa.null(), 1 << 30, [None])
    if kind.num_fields:
        length = (1 << 30) // kind.list_size if pa.types.is_fixed_size_list(kind) else 1 << 30
        nulls = pa.Array.from_buffers(kind, length, [None], children=[nulls])
    path = tmp_path / "a.arrow"
    batch = pa.record_batch([nulls], ["a"])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as out:
        out.write_batch(batch)
    assert path.stat().st_size < 2000
    with pytest.raises(DataError, match=r"(values|rows) in one record batch, more than 67,108,864"):
        read(path)


@pytest.mark.parametrize("index", [2, 170, -1])
@pytest.mark.parametrize("words", [["a", "b"], []])
def test_an_index_outside_of_its_dictionary_is_damage(index, words):
    indices = pa.array([None, index], pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()), safe=False)
    with pytest.raises(pa.ArrowInvalid, match="outside of its dictionary"):
        table_rows.row_sizes(column)
    assert table_rows.row_sizes(column.slice(0, 1)).tolist() == [8]
