"""What the tests of the batch job share: a small job of many tasks, the command as a process, a directory's bytes."""

import hashlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
TOKENIZER = DATA / "tokenizer"
INPUTS = [DATA / "chatml_zh.jsonl", DATA / "openai_tr.jsonl", DATA / "alpaca_en.json"]
SMALL = ["--tokenizer", TOKENIZER, "--shard-tokens", "6000", "--valid-fraction", "0.1", "--max-length", "600"]
"""Options that make a job of a few dozen tasks with rejects and two splits."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sft_shards.preprocess.cli", *map(str, arguments)]


def call(*arguments: object, status: int = 0, **options) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own; it must end with the status."""
    environment = {**os.environ, **options.pop("env", {})}
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, env=environment, check=False, **options
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def start(*arguments: object, **options) -> subprocess.Popen[str]:
    """Begin the command as a process of its own, in a group of its own, that Ctrl-C ends.

    A shell has what it starts in the background ignore SIGINT, and so may what runs the tests.
    """
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def error_line(text: str) -> str:
    """The one line that an error is, without a traceback."""
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("sft-preprocess: ")]
    assert len(lines) == 1, text
    return lines[0]


def contents(directory: Path) -> dict[str, str]:
    """Every file below a directory with the hash of its bytes."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def config(inputs=INPUTS, **changes):
    """The configuration that `SMALL` stands for."""
    from sft_shards.preprocess.config import JobConfig

    values = {"shard_tokens": 6000, "valid_fraction": 0.1, "max_length": 600} | changes
    return JobConfig(inputs=tuple(map(str, inputs)), tokenizer=str(TOKENIZER), **values)
