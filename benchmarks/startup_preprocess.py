"""Start-up of both commands: CPU seconds of small jobs, beside loading the same tokenizer by transformers.

    python -m benchmarks.startup_preprocess TOKENIZER [--against DIR] [--rounds 5]

Each line is a whole command with all processes that it starts, best of the rounds: CPU seconds, and seconds on the
clock. "Many" is `--records`, 50,000 by default. The cache folder is one of the benchmark's own; "new" means that it is
empty. The modules of a checkout are compiled first, as an installation's are. `--against` names another checkout of
this project, whose command runs in turn with this one; the last column is the ratio of CPU seconds. `sft-train` is
measured where Megatron is installed, with `--device cpu`.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import shutil
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
MODEL = ("--num-layers", "2", "--hidden-size", "64", "--num-attention-heads", "4", "--seq-length", "256")
MODEL += ("--train-iters", "2", "--lr", "1e-3")
SOURCES = ("__init__.py", "formats", "preprocess", "trainer")
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


def compile_modules(checkout: Checkout) -> None:
    """Write the bytecode of a checkout's modules: Python would else compile them in each round, or only in the first.

    Raises:
        subprocess.CalledProcessError: the checkout cannot be written.
    """
    places = [str(checkout.folder / name) for name in SOURCES]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *places], check=True)


def write_records(path: Path, count: int, size: int) -> None:
    """Write Alpaca records with outputs of about `size` characters, no two alike."""
    words = itertools.cycle(WORDS)
    with path.open("w") as file:
        for number in range(count):
            length = size // 2 + (number * 7919) % size
            text = " ".join(itertools.islice(words, length // 6))
            file.write(json.dumps({"instruction": f"Question {number}?", "output": f"{text} ({number})."}) + "\n")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    words: Callable[[Path], list[str]]
    """The call without the program, given an output folder that is not there."""
    command: str = "sft-preprocess"
    status: int = 0
    """The exit status that is expected."""
    new: bool = False
    """Whether it starts with an empty cache folder, in each round."""


def preprocess_rows(tokenizer: str, folder: Path) -> list[Row]:
    """Return the calls of `sft-preprocess`."""

    def run(name: str, *options: str) -> Callable[[Path], list[str]]:
        source = str(folder / name)
        return lambda output: ["run", source, "--tokenizer", tokenizer, "--output", str(output), *options]

    one = ("--workers", "1")
    return [
        Row(name="run, 10 records, one worker, new tokenizer", words=run("ten.jsonl", *one), new=True),
        Row(name="run, 10 records, one worker", words=run("ten.jsonl", *one)),
        Row(name="run, many records, one worker", words=run("many.jsonl", *one)),
        Row(name="the same in tasks of 1 M tokens, 2 workers", words=run("many.jsonl", "--workers", "2", *TASKS)),
        Row(
            name="preview, 10 records",
            words=lambda output: ["preview", str(folder / "ten.jsonl"), "--tokenizer", tokenizer],
        ),
        Row(name="inspect, one row", words=lambda output: ["inspect", str(folder / "made")]),
        Row(name="an input that does not exist", words=run("none.jsonl"), status=2),
    ]


def train_rows(folder: Path) -> list[Row]:
    """Return the calls of `sft-train`; none where Megatron is not installed."""
    if importlib.util.find_spec("megatron") is None:
        print("sft-train is not measured: Megatron is not installed", file=sys.stderr)
        return []

    def train(*options: str, flags: tuple[str, ...] = ()) -> Callable[[Path], list[str]]:
        shards = ("--shards", str(folder / "made"), "--random-weights", "--device", "cpu")
        return lambda output: [*shards, *options, "--", *MODEL, *flags]

    wrong = ("--num-layer", "2")
    return [
        Row(name="--dry-run, new Megatron", words=train("--dry-run"), command="sft-train", new=True),
        Row(name="--dry-run, other flags", words=train("--dry-run", flags=("--seed", "{turn}")), command="sft-train"),
        Row(name="--dry-run, the same again", words=train("--dry-run"), command="sft-train"),
        Row(name="a wrong flag of Megatron's", words=train(flags=wrong), command="sft-train", status=2),
        Row(name="a wrong option", words=lambda output: ["--shard", "x"], command="sft-train", status=2),
        Row(name="--help", words=lambda output: ["--help"], command="sft-train"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=50_000)
    given = parser.parse_args()
    checkouts = [HERE, *([Checkout(folder=given.against.resolve())] if given.against else [])]
    for checkout in checkouts:
        compile_modules(checkout)
    tokenizer = str(given.tokenizer.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_records(folder / "ten.jsonl", 10, 700)
        write_records(folder / "many.jsonl", given.records, 700)
        rows = [*preprocess_rows(tokenizer, folder), *train_rows(folder)]
        results = measure(checkouts, tokenizer, rows, folder, given.rounds)
    print(f"best of {given.rounds}: CPU seconds (seconds on the clock)")
    for name, costs in results.items():
        line = f"{name:55}" + "".join(f"  {one.cpu:5.2f} ({one.clock:5.2f})" for one in costs)
        print(line + (f"  {costs[0].cpu / costs[1].cpu:5.2f}" if len(costs) == 2 else ""))


def measure(
    checkouts: list[Checkout], tokenizer: str, rows: list[Row], folder: Path, rounds: int
) -> dict[str, list[Cost]]:
    """Run every row of every checkout in turn, round by round, and return the least cost of each."""
    base = {**os.environ, "HF_HUB_OFFLINE": "1"}
    transformers: list[Cost] = []
    found: dict[str, list[list[Cost]]] = {f"{row.command} {row.name}": [[] for _ in checkouts] for row in rows}
    for turn in range(rounds):
        transformers.append(cost([sys.executable, "-c", TRANSFORMERS, tokenizer], base, folder))
        for row, (at, checkout) in itertools.product(rows, enumerate(checkouts)):
            cache = folder / f"cache-{at}"
            if row.new:
                shutil.rmtree(cache, ignore_errors=True)
            environment = {**checkout.environment(), "SFT_SHARDS_CACHE": str(cache)}
            program = [sys.executable, "-P", "-m", checkout.entry(row.command)]
            output = folder / "out"
            words = [word.format(turn=turn) if word == "{turn}" else word for word in row.words(output)]
            costs = found[f"{row.command} {row.name}"][at]
            costs.append(cost([*program, *words], environment, folder, status=row.status))
            if output.exists():
                if not (folder / "made").exists():
                    output.rename(folder / "made")
                shutil.rmtree(output, ignore_errors=True)
    made = {"AutoTokenizer.from_pretrained": [min(transformers, key=lambda one: one.cpu)]}
    return made | {name: [min(some, key=lambda one: one.cpu) for some in costs] for name, costs in found.items()}


if __name__ == "__main__":
    main()
