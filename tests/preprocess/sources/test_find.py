"""Names with a colon are files like any other, and a URI that cannot be read or written is one line."""

import json

import pytest
from preprocess_jobs import TOKENIZER, call, contents, error_line

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.sources import find_sources, sample

RECORDS = [{"instruction": f"question {number}", "output": f"answer {number}"} for number in range(20)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder in which all names are relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(map(json.dumps, RECORDS))
    if kind == "parquet":
        with open(path, "wb") as file:
            pq.write_table(pa.Table.from_pylist(RECORDS), file)
    elif kind == "zst":
        with open(path, "wb") as file, pa.CompressedOutputStream(file, "zstd") as out:
            out.write(lines.encode())
    else:
        path.write_text(lines)
    return path


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["jsonl", "zst", "parquet"])
@pytest.mark.parametrize("name", ["a:b", "s3:x", "a:b/c:d", "file:/c"])
def test_a_relative_name_with_a_colon_is_a_file(here, kind, name):
    path = write(here / name, kind)
    [source] = find_sources([name])
    assert (source.path, source.file) == (name, str(path))
    assert [record for _, record in sample(source, 100)] == RECORDS


@pytest.mark.unit
@pytest.mark.parametrize("name", ["s3://bucket/data.jsonl", "https://host/data.parquet", "hf://datasets/a/b"])
def test_a_uri_is_refused_with_what_to_do(here, name):
    with pytest.raises(UsageError, match=f"^{name}: [a-z0-9]+:// cannot be read; copy the files"):
        find_sources([name])


@pytest.mark.unit
def test_a_name_with_a_colon_that_is_not_there_is_no_uri(here):
    with pytest.raises(UsageError, match="a:b: no such file or folder"):
        find_sources(["a:b"])


@pytest.mark.process
def test_a_job_below_a_folder_with_a_colon_gives_the_same_bytes(here):
    write(here / "in:put" / "data.jsonl", "jsonl")
    run = ["run", "in:put/data.jsonl", "--tokenizer", TOKENIZER, "--valid-fraction", "0.2", "--output"]
    call(*run, "a:b/s", cwd=here)
    call(*run, "other", cwd=here)
    assert contents(here / "a:b/s") == contents(here / "other")
    call("verify", "a:b/s", cwd=here)
    assert "in:put/data.jsonl" in call("inspect", "a:b/s", cwd=here).stdout


@pytest.mark.process
def test_an_output_that_is_a_uri_is_refused_and_leaves_nothing(here):
    write(here / "data.jsonl", "jsonl")
    done = call("run", "data.jsonl", "--tokenizer", TOKENIZER, "--output", "s3://bucket/out", cwd=here, status=2)
    assert "s3://bucket/out is an address" in error_line(done.stderr)
    assert [entry.name for entry in here.iterdir()] == ["data.jsonl"]
