"""Names with a colon are files like any other, and a URI that cannot be read or written is one line."""

import json

import pytest
from preprocess_jobs import TOKENIZER, call, contents, error_line

from sft_shards.formats.errors import DataError, UsageError
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


@pytest.mark.parametrize(
    "text",
    [
        '{"_data_files": [{"filename": "../secret.arrow"}]}',
        '{"_data_files": [{"filename": "/etc/passwd"}]}',
        '{"_data_files": [{"filename": 5}]}',
        '{"_data_files": 5}',
        "[]",
        "",
    ],
)
@pytest.mark.unit
def test_a_saved_data_set_names_only_its_own_files(tmp_path, text):
    (tmp_path / "saved").mkdir()
    (tmp_path / "secret.arrow").write_bytes(b"secret")
    (tmp_path / "saved" / "state.json").write_text(text)
    with pytest.raises(UsageError, match=r"state.json: not what a saved data set holds"):
        find_sources([str(tmp_path / "saved")])


@pytest.mark.parametrize("text", ['{"splits": ["../secret"]}', '{"splits": [[]]}', '{"splits": 5}'])
@pytest.mark.unit
def test_a_saved_data_set_names_only_its_own_splits(tmp_path, text):
    (tmp_path / "saved").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text(text)
    with pytest.raises(UsageError, match=r"dataset_dict.json: not what a saved data set holds"):
        find_sources([str(tmp_path / "saved")])


@pytest.mark.parametrize("link", ["state.json", "data.arrow"])
@pytest.mark.unit
def test_a_saved_data_set_is_read_through_no_link(tmp_path, link):
    (tmp_path / "saved").mkdir()
    (tmp_path / "secret").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (tmp_path / "saved" / link).unlink(missing_ok=True)
    (tmp_path / "saved" / link).symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=f"{link}: is a link"):
        find_sources([str(tmp_path / "saved")])


@pytest.mark.unit
def test_a_name_below_a_folder_that_is_there_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for given in ("data/none", "./data/none", "data/none:train"):
        with pytest.raises(UsageError, match="no such file or folder; check the path"):
            find_sources([given])


@pytest.mark.unit
def test_a_revision_of_a_data_set_is_passed_on(tmp_path, monkeypatch):
    import datasets

    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        raise ValueError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    for given in ("o/n", "o/n@v1:small:test", "o/n@refs/pr/1:test", "o/n:test"):
        with pytest.raises(UsageError, match="not to be had from the Hub"):
            find_sources([given])
    assert asked == [
        ("o/n", None, "train", None),
        ("o/n", "small", "test", "v1"),
        ("o/n", None, "test", "refs/pr/1"),
        ("o/n", None, "test", None),
    ]
