"""What the tests of the batch job share: a small job of many tasks, the command as a process, a directory's bytes."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

SUPPORT = Path(__file__).parent
DATA = SUPPORT.parent / "data"
TOKENIZER = DATA / "tokenizer"
INPUTS = [DATA / "chatml_zh.jsonl", DATA / "openai_tr.jsonl", DATA / "alpaca_en.json"]
SMALL = ["--tokenizer", TOKENIZER, "--shard-tokens", "6000", "--valid-fraction", "0.1", "--max-length", "600"]
"""Options that make a job of a few dozen tasks with rejects and two splits."""


GUARD = 550
"""Seconds after which a process that a test waits for is taken for hung; no test says how long anything takes."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "sft_shards.preprocess.cli", *map(str, arguments)]


def call(*arguments: object, status: int = 0, **options) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own; it must end with the status."""
    environment = {**os.environ, **options.pop("env", {})}
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=GUARD, env=environment, check=False, **options
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


class Held:
    """A folder that holds jobs in the middle of their work; see held/sitecustomize.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        path = os.pathsep.join(filter(None, [str(SUPPORT / "held"), os.environ.get("PYTHONPATH")]))
        self.environment = {"PYTHONPATH": path, "SFT_SHARDS_HELD": str(folder)}

    def waiting(self) -> set[int]:
        """Ids of the processes that were held so far."""
        return {int(path.name) for path in self.folder.iterdir() if path.name != "go"}

    def wait(self, process: subprocess.Popen[str] | None = None, count: int = 1) -> set[int]:
        """Wait until so many processes were held; `process` must not end before that."""
        while len(self.waiting()) < count:
            assert process is None or process.poll() is None, "the job ended and was never held"
            time.sleep(0.01)
        return self.waiting()

    def go(self) -> None:
        """Let all go on, and hold nobody any more."""
        (self.folder / "go").touch()


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
