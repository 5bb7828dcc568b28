"""Memory is bounded by the batch: not by the size of a file, and not by one long conversation. Measured, as the peak of
a process that runs one task over the whole input."""

import json
import os
import subprocess
import sys

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


def peak(path, output):
    """Peak resident memory of a job in one process, in bytes."""
    arguments = ["run", path, "--output", output, "--tokenizer", TOKENIZER, "--workers", 1, "--shard-tokens", PARTS]
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
        sizes.append(peak(path, tmp_path / f"out-{times}"))
    # Besides noise it grows by what is kept for each sequence: its number, length and trained tokens.
    assert sizes[1] < sizes[0] + 24 * MIB
    assert sizes[1] < 1024 * MIB


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
