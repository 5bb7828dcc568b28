"""Start-up of `sft-preprocess`: CPU seconds of small jobs, beside loading the same tokenizer by transformers.

    python -m benchmarks.startup_preprocess TOKENIZER [--against DIR] [--rounds 5]

Each line is a whole command with all processes that it starts, best of the rounds: CPU seconds, and seconds on the
clock. "Many" is `--records`, 50,000 by default. The cache folder is one of the benchmark's own, so that "new tokenizer"
is. `--against` names another checkout of this project, whose command runs in turn with this one; the last column is the
ratio of CPU seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.command import HERE, Checkout

TASKS = ("--shard-tokens", str(1 << 20))
SUBREAPER = 36
"""prctl's PR_SET_CHILD_SUBREAPER: whatever outlives its parent becomes a child of this process, and is counted."""
TRANSFORMERS = "import sys; from transformers import AutoTokenizer; AutoTokenizer.from_pretrained(sys.argv[1])"
WORDS = ("the", "model", "reads", "a", "question", "about", "rivers", "and", "answers", "in", "two", "sentences")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command cost."""

    cpu: float
    """CPU seconds of all its processes, user and system."""
    clock: float
    """Seconds until it ended."""


def cost(command: list[str], environment: dict[str, str], folder: Path, *, status: int = 0) -> Cost:
    """Run a command with all processes that it starts to their ends.

    Raises:
        SystemExit: it ended with another exit status.
    """
    code = (
        "import ctypes, json, os, resource, subprocess, sys, time\n"
        f"ctypes.CDLL(None).prctl({SUBREAPER}, 1, 0, 0, 0)\n"
        "began = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)\n"
        "clock = time.perf_counter() - began\n"
        "while True:\n"
        "    try:\n"
        "        os.wait()\n"
        "    except ChildProcessError:\n"
        "        break\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, clock, done.stderr.decode()[-500:]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, env=environment, cwd=folder
    )
    got, cpu, clock, err = json.loads(done.stdout)
    if got != status:
        sys.exit(f"{' '.join(command)}: ended with {got}\n{err}")
    return Cost(cpu=cpu, clock=clock)


def write_records(path: Path, count: int, size: int) -> None:
    """Write Alpaca records with outputs of about `size` characters, no two alike."""
    words = itertools.cycle(WORDS)
    with path.open("w") as file:
        for number in range(count):
            length = size // 2 + (number * 7919) % size
            text = " ".join(itertools.islice(words, length // 6))
            file.write(json.dumps({"instruction": f"Question {number}?", "output": f"{text} ({number})."}) + "\n")


def commands(program: list[str], tokenizer: str, folder: Path) -> dict[str, Callable[[Path], list[str]]]:
    """Return the commands by what they are; each is given an output folder that is not there."""

    def run(name: str, *options: str) -> Callable[[Path], list[str]]:
        source = str(folder / name)
        return lambda output: [*program, "run", source, "--tokenizer", tokenizer, "--output", str(output), *options]

    return {
        "run, 10 records, one worker, new tokenizer": run("ten.jsonl", "--workers", "1"),
        "run, 10 records, one worker": run("ten.jsonl", "--workers", "1"),
        "run, many records, one worker": run("many.jsonl", "--workers", "1"),
        "the same in tasks of 1 M tokens, 2 workers": run(
            "many.jsonl", "--workers", "2", "--shard-tokens", str(1 << 20)
        ),
        "inspect, one row": lambda output: [*program, "inspect", str(folder / "made")],
        "an input that does not exist": run("none.jsonl"),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=50_000)
    given = parser.parse_args()
    checkouts = [HERE, *([Checkout(folder=given.against.resolve())] if given.against else [])]
    tokenizer = str(given.tokenizer.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_records(folder / "ten.jsonl", 10, 700)
        write_records(folder / "many.jsonl", given.records, 700)
        results = measure(checkouts, tokenizer, folder, given.rounds)
    print(f"best of {given.rounds}: CPU seconds (seconds on the clock)")
    for name, costs in results.items():
        line = f"{name:44}" + "".join(f"  {one.cpu:5.2f} ({one.clock:5.2f})" for one in costs)
        print(line + (f"  {costs[0].cpu / costs[1].cpu:5.2f}" if len(costs) == 2 else ""))


def measure(checkouts: list[Checkout], tokenizer: str, folder: Path, rounds: int) -> dict[str, list[Cost]]:
    """Run every command of every checkout in turn, and return the least cost of each."""
    made: dict[str, list[Cost]] = {}
    base = {**os.environ, "HF_HUB_OFFLINE": "1"}
    loading = [cost([sys.executable, "-c", TRANSFORMERS, tokenizer], base, folder) for _ in range(rounds)]
    made["AutoTokenizer.from_pretrained"] = [min(loading, key=lambda one: one.cpu)]
    names = list(commands([], tokenizer, folder))
    for name in names:
        costs: list[list[Cost]] = [[] for _ in checkouts]
        for turn in range(rounds):
            for at, checkout in enumerate(checkouts):
                cache = folder / f"cache-{at}" if "new" not in name else folder / f"cache-{at}-{turn}"
                environment = {**checkout.environment(), "SFT_SHARDS_CACHE": str(cache)}
                program = [sys.executable, "-P", "-m", checkout.entry()]
                if name.startswith("inspect") and not (folder / "made").exists():
                    cost(commands(program, tokenizer, folder)[names[1]](folder / "made"), environment, folder)
                output = folder / f"out-{at}-{turn}-{len(made)}"
                command = commands(program, tokenizer, folder)[name](output)
                costs[at].append(cost(command, environment, folder, status=2 if "not exist" in name else 0))
        made[name] = [min(some, key=lambda one: one.cpu) for some in costs]
    return made


if __name__ == "__main__":
    main()
