"""`rejects`: counts by reason, and the records as they stand in files of every kind."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.unit

GOOD = {"instruction": "Name a colour", "output": "Red"}
SILENT = {"instruction": "Say nothing", "output": ""}
ASKED = {"instruction": "", "output": "Nobody asked"}
RECORDS = [GOOD, SILENT, GOOD, ASKED, SILENT, SILENT]


@pytest.fixture(params=["jsonl", "json", "parquet", "csv", "jsonl.gz"])
def path(request, tmp_path):
    """The same records in a file of each kind."""
    path = tmp_path / f"a.{request.param}"
    lines = "".join(json.dumps(one) + "\n" for one in RECORDS)
    if request.param == "jsonl":
        path.write_text(lines)
    elif request.param == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif request.param == "json":
        path.write_text(json.dumps(RECORDS, indent=1))
    elif request.param == "csv":
        path.write_text(
            "instruction,output\n" + "".join(f'"{one["instruction"]}","{one["output"]}"\n' for one in RECORDS)
        )
    else:
        pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=2)
    return path


@pytest.fixture
def made(preprocess, tmp_path, bpe_folder, path):
    assert preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 0
    return tmp_path / "out"


def test_counts_and_records(preprocess, made, path):
    status, out, _ = preprocess("rejects", made, "--json", "-n", 2)
    found = json.loads(out)
    assert status == 0
    assert found["read"] == 6
    assert {one["reason"]: one["records"] for one in found["left_out"]} == {
        "empty_assistant_turn": 3,
        "empty_instruction": 1,
    }
    assert [(one["record"], one["value"]) for one in found["records"]] == [(1, SILENT), (4, SILENT), (3, ASKED)]
    assert {one["source"] for one in found["records"]} == {str(path)}


def test_one_reason(preprocess, made):
    found = json.loads(preprocess("rejects", made, "--json", "--reason", "empty_assistant_turn")[1])
    assert [one["record"] for one in found["records"]] == [1, 4, 5]
    status, _, err = preprocess("rejects", made, "--reason", "empty_assistant_tern")
    assert (status, "did you mean 'empty_assistant_turn'" in err) == (2, True)
    assert preprocess("rejects", made, "--source", "nonesuch")[0] == 2


def test_lines_for_people(preprocess, made, path):
    status, out, _ = preprocess("rejects", made)
    assert status == 0
    assert "4 left out of 6 records\n" in out
    assert f"record 1 of {path}: empty_assistant_turn: " in out
    assert "remedy: fill it\n" in out
    assert '│   "instruction": "Say nothing",' in out


def test_a_file_that_changed_is_not_taken_for_the_one_that_was_read(preprocess, made, path):
    with path.open("ab") as file:
        file.write(b"\n\n")
    status, out, _ = preprocess("rejects", made)
    assert status == 0
    assert "the record cannot be shown: " in out
    assert "Say nothing" not in out
    path.unlink()
    assert "the record cannot be shown: " in preprocess("rejects", made)[1]


def test_a_line_that_is_no_json_is_shown_as_it_stands(preprocess, tmp_path, bpe_folder):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"instruction": \x1b[31m\n{"a": "\xff"}\n')
    assert preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 0
    status, out, _ = preprocess("rejects", tmp_path / "out")
    assert status == 0
    assert '│ {"instruction": \\x1b[31m\n' in out
    assert '│ {"a": "\\xff"}\n' in out


def test_nothing_left_out(preprocess, tmp_path, bpe_folder):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD))
    assert preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 0
    assert preprocess("rejects", tmp_path / "out")[:2] == (0, "nothing was left out\n")


def test_a_job_that_was_refused(preprocess, tmp_path, bpe_folder):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(SILENT))
    assert preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 1
    status, out, _ = preprocess("rejects", tmp_path / "out")
    assert (status, "Say nothing" in out) == (0, True)
    assert preprocess("rejects", tmp_path / "nothing")[0] == 2
