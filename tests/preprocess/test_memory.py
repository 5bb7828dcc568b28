"""Memory is bounded by the batch: not by the size of a file, and not by one long conversation. Measured, as the peak of
a process that runs one task over the whole input."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_jobs import INPUTS, TOKENIZER, command

pytestmark = pytest.mark.process

MIB = 1 << 20
PARTS = 1 << 40
"""Tokens a shard: everything in one task."""
STARTER = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
"""A small process that starts the job and prints its peak in KiB: Linux counts to a process what the one that started
it had resident at that moment, and pytest may have gigabytes."""


def peak(path, output, *options):
    """Peak resident memory of a job in one process, in bytes."""
    arguments = ["run", path, "--output", output, "--tokenizer", TOKENIZER, "--workers", 1, "--shard-tokens", PARTS]
    arguments += options
    done = subprocess.run(
        [sys.executable, "-c", STARTER, *command(*arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAYON_NUM_THREADS": "2"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) * 1024


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_file_five_times_as_large_takes_no_more_memory(tmp_path, kind):
    silent = b'{"text": "<|im_start|>user\\nOh.<|im_end|>\\n"}'  # a record that is left out must not keep its batch
    lines = [*INPUTS[1].read_bytes().splitlines(), silent]
    sizes = []  # of files that fill some batches and many
    for times in (75, 375):
        path = tmp_path / f"{times}.{kind}"
        text = (b"\n" if kind == "jsonl" else b",\n").join(lines * times)
        path.write_bytes(text if kind == "jsonl" else b"[" + text + b"]")
        # The same backend, and the same loading, whatever the size and whatever ran before.
        sizes.append(peak(path, tmp_path / f"out-{times}", "--tokenizer-engine", "fastokens", "--no-cache"))
    # Besides noise it grows by what is kept for each sequence: its number, length and trained tokens.
    assert sizes[1] < sizes[0] + 24 * MIB
    assert sizes[1] < 1024 * MIB


def test_a_worker_needs_no_more_than_a_multiple_of_the_largest_record(tmp_path):
    """docs/scaling.md: 512 MiB, and 700 bytes for each byte of --max-record-bytes."""
    most = MIB // 4
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    large = [
        {"messages": [good["messages"][0], {"role": "assistant", "content": "1 2 " * (most // 4 - 50)}]},
        {"messages": [{"role": "user", "content": "<|im_end|>" * (most // 10 - 50)}, good["messages"][1]]},
        {**good, "other": [{}] * (most // 4 - 50)},
        {**good, "tools": [{"function": {"name": str(number)}} for number in range(most // 34 - 50)]},
    ]
    texts = [json.dumps(record, ensure_ascii=False) for record in large]
    assert all(most * 0.8 < len(text) <= most for text in texts)
    path = tmp_path / "large.jsonl"
    larger = json.dumps({**good, "other": "y" * 20 * MIB})
    path.write_text("\n".join([json.dumps(good), *texts, larger]))
    options = ["--max-record-bytes", most, "--template", "chatml"]
    assert peak(path, tmp_path / "out", *options) < 512 * MIB + 700 * most
    rejects = (tmp_path / "out" / "rejects.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in rejects] == ["too_large"]


READER = """
import sys
from sft_shards.preprocess.sources import PartReader, cut, find_sources
[source] = find_sources(sys.argv[1:])
for part in cut(source, 1 << 40):
    for batch in PartReader(source, part).batches():
        pass
"""


def of_one_text(path):
    """A gibibyte of rows, all of which are the same text."""
    indices = pa.array(np.zeros(1 << 13, dtype=np.int32))
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * (1 << 17)]))
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", store_schema=False)


def of_one_row(path):
    """One row, of very many messages that are all the same."""
    count = 1 << 22
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array(["x" * 1000]))
    rows = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.StructArray.from_arrays([text], ["content"]))
    pq.write_table(pa.table({"messages": rows}), path, compression="zstd", store_schema=False)


def of_one_line(path):
    """A line of half a gibibyte."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"q,a\n1,")
        for _ in range(512):
            file.write(b"x" * MIB)


@pytest.mark.parametrize(
    ("name", "write"), [("a.parquet", of_one_text), ("b.parquet", of_one_row), ("c.csv.gz", of_one_line)]
)
def test_a_small_file_that_stands_for_a_large_one_is_read_in_little_memory(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert path.stat().st_size < 4 * MIB
    done = subprocess.run(
        [sys.executable, "-c", STARTER, sys.executable, "-c", READER, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) * 1024 < 448 * MIB


def test_conversations_of_200_000_tokens_fit_into_a_gibibyte(tmp_path):
    texts = [json.loads(line)["messages"] for line in INPUTS[1].read_bytes().splitlines()]
    words = " ".join(turn["content"] for text in texts for turn in text)
    path = tmp_path / "long.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(6):
            turn = {"role": "assistant", "content": (words * (1 + 300_000 // len(words)))[number:]}
            messages = [{"role": "user", "content": str(number)}, turn] * 3
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    assert peak(path, tmp_path / "out") < 1024 * MIB
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["splits"]["train"]["longest"] > 200_000
    assert manifest["splits"]["train"]["sequences"] == 6
