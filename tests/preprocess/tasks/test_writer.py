"""The `rows` file: what is written is read, and reading leaves no thread of Arrow's behind that Python's end could meet."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.rows import read_rows
from sft_shards.preprocess.pipeline.batch import TrainedTurns
from sft_shards.preprocess.tasks.writer import shift_rows, turns_of, write_rows

COUNT_THREADS = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from sft_shards.formats.shards.rows import read_rows
before = len(os.listdir("/proc/self/task"))
assert read_rows(Path(sys.argv[1])).num_rows == 3
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "a:b" / "rows.parquet"
    path.parent.mkdir()
    write_rows(path, "in.jsonl", np.array([0, 2, 3]), np.array([5, 6, 7]), np.array([1, 2, 3]))
    return path


@pytest.mark.unit
def test_rows_come_back(rows):
    table = read_rows(rows, ["source", "record", "tokens"]).to_pydict()
    assert table == {"source": ["in.jsonl"] * 3, "record": [0, 2, 3], "tokens": [5, 6, 7]}


@pytest.mark.unit
def test_turns_come_back_and_survive_a_shift(tmp_path):
    turns = TrainedTurns.of([(1,), (1, 3), (5,)])
    write_rows(tmp_path / "rows", "in", np.array([0, 0, 3]), np.array([5, 6, 7]), np.array([1, 2, 3]), turns)
    shift_rows(tmp_path / "rows", tmp_path / "shifted", 10, root=tmp_path, count=3)
    table = read_rows(tmp_path / "shifted", ["record"])
    assert table.to_pydict() == {"record": [10, 10, 13], "turns": [[1], [1, 3], [5]]}
    found = turns_of(table.slice(1))
    assert (found.numbers.tolist(), found.offsets.tolist()) == ([1, 3, 5], [0, 2, 3])
    assert turns_of(table.drop_columns(["turns"])) is None


@pytest.mark.unit
@pytest.mark.parametrize(
    ("turns", "match"),
    [
        (pa.array([["a"], ["b"], []]), "column turns is not a list of int32"),
        (pa.array([[1], [None], []], pa.list_(pa.int32())), "a value is null"),
        (pa.array([[1], None, []], pa.list_(pa.int32())), "a value is null"),
    ],
)
def test_turns_of_another_form_are_refused(rows, turns, match):
    pq.write_table(read_rows(rows).append_column("turns", turns), rows.parent / "other.parquet")
    with pytest.raises(pa.ArrowInvalid, match=match):
        read_rows(rows.parent / "other.parquet")


@pytest.mark.process
def test_reading_starts_no_thread(rows):
    """A pool of Arrow's that held a file of Python's made one process in sixty abort as it ended."""
    done = subprocess.run([sys.executable, "-c", COUNT_THREADS, rows], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda table: table.append_column("x", [pa.nulls(3)]), None),
        (lambda table: table.slice(0, 2), "2 rows, not 3"),
        (lambda table: table.drop_columns(["record"]), "no column record of type int64"),
        (lambda table: table.set_column(1, "record", pa.array(["a", "b", "c"])), "no column record of type int64"),
        (lambda table: table.set_column(1, "record", pa.array([1, None, 2])), "a value is null"),
        (lambda table: table.set_column(0, "source", pa.array(["a"] * 3)), "no column source of type dictionary"),
    ],
)
def test_another_table_is_refused(rows, tmp_path, change, match):
    """Such as one whose few bytes stand for millions of rows: the count is compared before any row is read."""
    pq.write_table(change(read_rows(rows)), rows.parent / "other.parquet")
    place = {"root": rows.parent, "count": 3}
    if match is None:
        assert read_rows(rows.parent / "other.parquet", ["record"], **place).num_rows == 3
        return
    with pytest.raises(pa.ArrowInvalid, match=match):
        read_rows(rows.parent / "other.parquet", **place)
    with pytest.raises(DataError, match=f"not a readable rows file .*{match}"):
        shift_rows(rows.parent / "other.parquet", tmp_path / "shifted", 5, **place)
