"""A kind of input is one file with one entry in the registry: here a toy one, from detection to a finished job."""

import gzip
import json

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.sources import KINDS, Part, PartReader, RawBatch, cut, find_sources, kind_of, sample
from sft_shards.preprocess.sources.find import open_source

pytestmark = pytest.mark.unit


class Pairs:
    """Records of two lines, a question and an answer, behind a line `%PAIRS`."""

    name = "pairs"
    suffixes = (".pairs",)
    compressible = False

    def matches(self, head):
        return head.data.startswith(b"%PAIRS\n")

    def cut(self, source, target):
        half = source.bytes // 2
        records = self._records(source)
        middle = len(records) // 2
        return [Part(end=half, last=middle), Part(begin=half, end=source.bytes, first=middle, last=len(records))]

    def whole(self, source):
        return Part(end=source.bytes, last=len(self._records(source)))

    def read(self, source, part, progress, max_record_bytes):
        yield RawBatch(0, self._records(source)[part.first : part.last])

    def keeps_parts_when_appended(self, source):
        return False

    def _records(self, source):
        with open(source.file, encoding="utf-8") as file:
            _, *lines = file.read().splitlines()
        return [{"instruction": one, "output": other} for one, other in zip(lines[::2], lines[1::2], strict=True)]


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, Pairs.name, Pairs())
    path = tmp_path / "data.pairs"
    path.write_text("%PAIRS\n" + "".join(f"question {number}\nanswer {number}\n" for number in range(9)))
    return path


def test_a_new_kind_needs_one_entry_and_nothing_else(pairs):
    [source] = find_sources([str(pairs.parent)])  # found in a folder, by its suffix
    assert (source.kind, source.published()["kind"]) == ("pairs", "pairs")
    assert [number for number, _ in sample(source, 3)] == [0, 1, 2]
    readers = [PartReader(source, part) for part in cut(source, 100)]
    read = [record for reader in readers for batch in reader.batches() for _, record in batch]
    assert [record["output"] for record in read] == [f"answer {number}" for number in range(9)]
    assert len({reader.sha256 for reader in readers}) == 2
    assert not kind_of(source).keeps_parts_when_appended(source)


def test_a_kind_that_cannot_be_compressed_is_refused_when_it_is(pairs):
    packed = pairs.with_suffix(".pairs.gz")
    packed.write_bytes(gzip.compress(pairs.read_bytes()))
    with pytest.raises(UsageError, match="pairs inside of gzip; unpack it first"):
        open_source(packed, "data.pairs.gz")


@pytest.mark.parametrize(
    ("name", "contents", "kind"),
    [
        ("a.txt", b'{"a": 1}', "jsonl"),
        ("a.csv", b'{"a": 1}', "csv"),
        ("a.json", b'[{"a": 1}]', "json"),
        ("a.json", b'[{"role": "user"}]', "jsonl"),
        ("a.json", b'[{"role": "user"}]\n[{"role": "user"}]', "jsonl"),
        ("a.json", b'[\n{"role": "user"}]', "json"),
        ("a.json", b'{\n"a": 1}', "object"),
        ("a.json", b'{"a": 1}\n{"a": 2}', "jsonl"),
        ("a.json", b'{"a": 1', "jsonl"),
        ("a.json", b"[" * 5000, "json"),
        ("a.parquet", b'\xef\xbb\xbf "text"', "jsonl"),
    ],
)
def test_contents_decide_the_kind_and_names_only_for_csv(tmp_path, name, contents, kind):
    (tmp_path / name).write_bytes(contents)
    assert open_source(tmp_path / name, name).kind == kind


def test_what_no_kind_knows_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"<html>" + json.dumps({"a": 1}).encode())
    with pytest.raises(UsageError, match=r"a\.json: neither JSON nor Parquet \(begins with '<html>"):
        open_source(tmp_path / "a.json", "a.json")
