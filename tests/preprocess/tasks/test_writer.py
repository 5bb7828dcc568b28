"""The `rows` file: what is written is read, and reading leaves no thread of Arrow's behind that Python's end could meet."""

import subprocess
import sys

import numpy as np
import pytest

from sft_shards.preprocess.tasks.writer import read_rows, write_rows

COUNT_THREADS = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from sft_shards.preprocess.tasks.writer import read_rows
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


@pytest.mark.process
def test_reading_starts_no_thread(rows):
    """A pool of Arrow's that held a file of Python's made one process in sixty abort as it ended."""
    done = subprocess.run([sys.executable, "-c", COUNT_THREADS, rows], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
