"""Every kind of input gives the same records, however it is cut; what is damaged says so."""

import csv
import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.preprocess.sources import PartReader, cut, find_sources, json_array, parse, sample, streams
from sft_shards.preprocess.sources.stdin import spool

pytestmark = pytest.mark.unit

RECORDS = [
    {"instruction": f'Question {at} \u2028\u0085 "x\\', "output": "[{" * (at % 3) + "é" * at} for at in range(60)
]


def read(source, target, max_record_bytes=streams.MAX_RECORD_BYTES):
    """All records, part by part; each part's numbers count from 0 and its hash is that of its bytes."""
    parts = cut(source, target)
    assert [part.begin for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == source.bytes
    found = []
    for part in parts:
        one = PartReader(source, part, max_record_bytes)
        items = [item for batch in one.batches() for item in batch]
        assert [number for number, _ in items] == list(range(len(items)))
        assert one.sha256 == streams.hash_range(source.file, part.begin, part.end)
        found += [record for _, record in items]
    return found


def write_as(folder, kind, records):
    path = folder / f"data.{kind}"
    texts = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    if kind == "jsonl":
        path.write_bytes(b"\r\n\n".join(texts))
    elif kind == "json":
        path.write_text(json.dumps(records, indent=2), "utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=7)
    elif kind == "arrow":
        table = pa.Table.from_pylist(records)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table, max_chunksize=7)
    elif kind in ("csv", "tsv"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, list(records[0]), delimiter="\t" if kind == "tsv" else ",")
            out.writeheader()
            out.writerows(records)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(b"\n".join(texts[:30]) + b"\n") + gzip.compress(b"\n".join(texts[30:])))
    elif kind == "json.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(b"[" + b" ,\n".join(texts) + b"]\n")
    return path


KINDS = ["jsonl", "json", "parquet", "arrow", "csv", "tsv", "jsonl.gz", "json.zst"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [1, 100, 1000, 1 << 30])
def test_every_kind_and_every_cut_give_the_same_records(tmp_path, kind, target):
    [source] = find_sources([str(write_as(tmp_path, kind, RECORDS))])
    assert read(source, target) == RECORDS
    assert [record for _, record in sample(source, 5)] == RECORDS[:5]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_parts_are_of_about_the_size_asked_for(tmp_path, kind):
    path = write_as(tmp_path, kind, RECORDS * 20)
    [source] = find_sources([str(path)])
    whole = sum(len(json.dumps(record, ensure_ascii=False).encode()) for record in RECORDS * 20)
    assert 4 <= len(cut(source, whole // 8)) <= 20
    assert len(cut(source, whole * 8)) == 1


texts = st.text(alphabet='ab"\\[]{},:\n é\u2028😀', max_size=12)
values = st.recursive(texts | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(
    records=st.lists(st.dictionaries(texts, values, max_size=3), min_size=1, max_size=8),
    target=st.integers(1, 200),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
    bom=st.booleans(),
)
def test_any_array_and_any_lines_survive_any_cut(tmp_path_factory, records, target, block, indent, bom):
    folder = tmp_path_factory.mktemp("cut")
    before, streams.BLOCK = streams.BLOCK, block
    try:
        mark = "\ufeff" if bom else ""
        (folder / "a.json").write_text(mark + json.dumps(records, indent=2) + "\n", "utf-8")
        (folder / "a.jsonl").write_text(
            mark + "\n".join([json.dumps(one, ensure_ascii=False) for one in [{"x": 1}, *records]]), "utf-8", newline=""
        )
        as_array, as_lines = find_sources([str(folder)])
        assert as_array.kind in ("json", "jsonl")
        if as_array.kind == "json":
            assert read(as_array, target) == records
        assert read(as_lines, target) == [{"x": 1}, *records]
    finally:
        streams.BLOCK = before


def test_a_broken_item_of_an_array_costs_itself_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": 1}, {"a": tru}, {"a": "\xff"}, , {"a": 2},]')
    [source] = find_sources([str(path)])
    found = read(source, 1)
    assert (found[0], found[4]) == ({"a": 1}, {"a": 2})
    assert [one.reason for one in found[1:4]] == ["broken_json", "broken_utf8", "broken_json"]
    assert len(found) == 5


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b'[{"a": 1}, {"a": 2}', "ends in the middle, after record 0; it was cut off"),
        (b'[{"a": 1}, {"a": "x', "ends in the middle"),
        (b'[{"a": 1}] [2]', "goes on after the end of its array"),
        (b'[{"a": 1}] x', "goes on after the end of its array"),
    ],
)
def test_an_array_that_is_no_array_is_refused_before_anything_is_written(tmp_path, text, match):
    path = tmp_path / "a.json"
    path.write_bytes(b"[\n" + text[1:])
    [source] = find_sources([str(path)])
    with pytest.raises(DataError, match=match):
        cut(source, 100)
    with pytest.raises(DataError, match=match):
        list(json_array.items([(0, path.read_bytes())], 1 << 40, "a.json"))


def test_a_line_without_end_is_left_out_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 64)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n"' + b"x" * 5000 + b'"\n{"a": 2}\n')
    [source] = find_sources([str(path)])
    for target in (1 << 20, 700):
        found = read(source, target, 1000)
        assert [one if isinstance(one, dict) else one.reason for one in found] == [{"a": 1}, "too_large", {"a": 2}]


@pytest.mark.parametrize("kind", ["jsonl.gz", "json.zst", "parquet", "arrow"])
def test_a_file_that_was_cut_off_is_an_error_and_not_fewer_records(tmp_path, kind):
    path = write_as(tmp_path, kind, RECORDS * 300)
    path.write_bytes(path.read_bytes()[:-100])
    [source] = find_sources([str(path)])
    with pytest.raises(DataError, match=r"data\.\S+: "):
        read(source, 1 << 30)


def test_csv_rows_of_another_width_and_other_bytes_are_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'q,a\n1,2\n1\n1,2,3\n\xff,2\n"x,\ny",2\n')
    [source] = find_sources([str(path)])
    found = read(source, 1)
    assert [one.reason for one in found if isinstance(one, RecordError)] == ["broken_csv", "broken_csv", "broken_utf8"]
    assert [one for one in found if isinstance(one, dict)] == [{"q": "1", "a": "2"}, {"q": "x,\ny", "a": "2"}]


def test_one_record_alone_and_a_bare_list_per_line(tmp_path):
    record = {"instruction": "a", "output": "b"}
    (tmp_path / "one.json").write_text(json.dumps(record, indent=2))
    (tmp_path / "lists.json").write_text("\n".join(json.dumps([{"role": "user", "content": "a"}]) for _ in range(3)))
    lists, one = find_sources([str(tmp_path)])
    assert (lists.kind, one.kind) == ("jsonl", "object")
    assert read(one, 1) == [record]
    assert read(lists, 1) == [[{"role": "user", "content": "a"}]] * 3


def test_a_saved_data_set_is_read_in_its_own_order(tmp_path):
    import datasets

    made = datasets.Dataset.from_list(RECORDS)
    made.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    sources = find_sources([str(tmp_path / "saved")])
    assert [source.kind for source in sources] == ["arrow"] * 3
    assert [record for source in sources for record in read(source, 1)] == RECORDS
    datasets.DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(str(tmp_path / "splits"))
    assert [record for source in find_sources([str(tmp_path / "splits")]) for record in read(source, 1)] == RECORDS
    datasets.DatasetDict({"a": made, "b": made}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(UsageError, match=r"a data set with splits a, b; name one: .*other/a"):
        find_sources([str(tmp_path / "other")])


def test_a_data_set_of_the_hub_is_what_datasets_keeps_of_it(tmp_path, monkeypatch):
    import datasets

    datasets.Dataset.from_list(RECORDS).save_to_disk(str(tmp_path / "cache"))
    asked = []

    def load(name, config, split, revision):
        asked.append((name, config, split))
        if name == "some/gone":
            raise FileNotFoundError("Dataset 'some/gone' doesn't exist on the Hub")
        return datasets.load_from_disk(str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name, call in (
        ("some/chats", ("some/chats", None, "train")),
        ("some/chats:test", ("some/chats", None, "test")),
        ("some/chats:en:test", ("some/chats", "en", "test")),
    ):
        [source] = find_sources([name])
        assert (asked.pop(), source.path) == (call, f"{name}#00000")
        assert read(source, 1000) == RECORDS
    with pytest.raises(UsageError, match=r"some/gone: no such file or folder, and not to be had from the Hub"):
        find_sources(["some/gone"])


def test_standard_input_is_kept_and_compared(tmp_path):
    text = json.dumps(RECORDS[0]).encode() + b"\n"
    kept = spool(tmp_path, io.BytesIO(text))
    assert kept.read_bytes() == text
    assert spool(tmp_path, io.BytesIO(text)) == spool(tmp_path, io.BytesIO(b"")) == kept
    with pytest.raises(UsageError, match="not what the unfinished job was given"):
        spool(tmp_path, io.BytesIO(text * 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stdin"]
    (tmp_path / "new").mkdir()
    with pytest.raises(UsageError, match="nothing came"):
        spool(tmp_path / "new", io.BytesIO(b""))
    [source] = find_sources(["-"], lambda: kept)
    assert (source.path, read(source, 10)) == ("-", RECORDS[:1])


def test_a_batch_is_bounded_by_bytes_and_not_by_records(tmp_path):
    long = {"instruction": "x" * 300_000, "output": "y"}
    for kind in ("jsonl", "json", "parquet"):
        [source] = find_sources([str(write_as(tmp_path, kind, [long] * 40))])
        [part] = cut(source, 1 << 40)
        assert max(len(batch) for batch in PartReader(source, part).batches()) <= 16


def test_rows_with_a_text_that_is_not_utf_8_are_rejects(tmp_path):
    texts = [b"ok", b"a\xffb", b"fine", "é".encode(), b"\xc3", b"end"]
    ends = pa.py_buffer(np.cumsum([0, *map(len, texts)]).astype(np.int32))
    broken = pa.Array.from_buffers(pa.string(), len(texts), [None, ends, pa.py_buffer(b"".join(texts))])
    messages = pa.StructArray.from_arrays([pa.array(["user"] * len(texts)), broken], ["role", "content"])
    lists = pa.ListArray.from_arrays(pa.array(range(len(texts) + 1), pa.int32()), messages)
    pq.write_table(pa.table([lists], ["messages"]), tmp_path / "broken.parquet")
    [source] = find_sources([str(tmp_path / "broken.parquet")])
    found = read(source, 1 << 40)
    assert [one.reason for one in (found[1], found[4])] == ["broken_utf8"] * 2
    assert [found[at]["messages"][0]["content"] for at in (0, 2, 3, 5)] == ["ok", "fine", "é", "end"]


def test_numbers_that_no_parser_takes_are_a_reject(tmp_path):
    assert parse(b'{"a": ' + b"9" * 5000 + b"}").reason == "broken_json"
    assert parse(b"[" * 200_000).reason == "nested_too_deeply"
