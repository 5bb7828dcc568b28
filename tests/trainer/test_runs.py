"""Whole runs on the CPU: what they say, what they keep, how they go on, how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import TOY_MODEL, random_pairs, sft_train, turn, write_shards

FLAGS = [*TOY_MODEL, "--seq-length=32", "--global-batch-size=4", "--lr=1e-2", "--micro-batch-size=2"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = random_pairs(20, seed=1)
    pairs += [turn([11], [21] * 60), turn([11] * 60, [21])]
    folder = tmp_path_factory.mktemp("shards")
    return write_shards(folder, {"train": pairs, "valid": random_pairs(5, seed=2, answer=(1, 12))}, shards=2)


def train(shards: Path, *flags: str, own: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    done = sft_train("--shards", shards, "--device", "cpu", *own, "--", *FLAGS, *flags)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "Traceback" not in done.stderr
    return done


def curve(done: subprocess.CompletedProcess[str]) -> dict[int, str]:
    """The loss of each iteration, as printed (seven digits)."""
    found = re.findall(r"iteration +(\d+)/.*lm loss: (\S+).*grad norm: (\S+)", done.stdout)
    return {int(step): f"{loss} {norm}" for step, loss, norm in found}


def test_a_run_says_what_it_trains_on_and_goes_on_where_it_stopped(shards: Path, tmp_path: Path) -> None:
    schedule = ["--train-iters=12", "--eval-interval=4", "--adam-beta2=0.95"]
    straight = train(shards, *schedule)
    said = straight.stderr
    assert "1 without a trained token left out" in said
    assert re.search(r"; \d+ cut at 33 tokens", said)
    assert "validation: 5 of 5 conversations" in said
    assert straight.stdout.count("validation loss at iteration") == 3 + 1

    saved = [f"--save={tmp_path / 'checkpoint'}", f"--load={tmp_path / 'checkpoint'}"]
    first = train(shards, *schedule, *saved, "--exit-interval=7", "--save-interval=7")
    second = train(shards, *schedule, *saved)
    assert list(curve(first)) == list(range(1, 8))
    assert list(curve(second)) == list(range(8, 13))
    resumed, expected = {**curve(first), **curve(second)}, curve(straight)
    norms = [{step: text.split()[1] for step, text in each.items()} for each in (resumed, expected)]
    assert norms[0] == norms[1]
    for each in (resumed, expected):
        # Megatron's second line after a start is the mean of the first two steps
        del each[2], each[9]
    assert resumed == expected
    validation = re.compile(r"iteration 12 .*lm loss value: \S+")
    assert validation.findall(second.stdout) == validation.findall(straight.stdout)
    assert (tmp_path / "checkpoint/latest_checkpointed_iteration.txt").read_text().strip() == "12"

    longer = sft_train("--shards", shards, "--device", "cpu", "--", *FLAGS, *saved, "--train-iters=20")
    assert longer.returncode == 2
    assert "--override-opt-param-scheduler" in longer.stderr.splitlines()[-1]


def test_without_a_validation_split(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "shards", {"train": [*random_pairs(4, seed=1), turn([11], [21] * 60)]})
    (tmp_path / "run.yaml").write_text(f"shards: {path}\ndevice: cpu\noverlong: drop\ntrain-iters: 2\nbf16: true\n")
    done = sft_train("--config", tmp_path / "run.yaml", "--", *FLAGS, "--eval-iters=3")
    assert done.returncode == 0, done.stderr
    assert "no validation split, so no validation loss" in done.stderr
    assert "longer than 33 tokens dropped" in done.stderr
    assert "validation loss" not in done.stdout
    assert list(curve(done)) == [1, 2]


def test_interrupted_it_leaves_nobody_behind(shards: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "--shards", shards, "--device", "cpu", "--nproc", 2, "--"]
    mark = f"--wandb-exp-name=interrupted-{os.getpid()}"
    with subprocess.Popen(
        [*map(str, command), *FLAGS, "--train-iters=100000", mark],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "lm loss" in line:
                break
        assert len(having(mark)) == 3, "the command and two workers"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert said[-1].startswith("sft-train: interrupted")
    assert not any("Traceback" in line for line in said)
    deadline = time.monotonic() + 5
    while having(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert having(mark) == []


def having(mark: str) -> list[str]:
    """Processes with `mark` in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "cmdline").read_text():
                found.append(folder.name)
        except OSError:
            continue  # it ended meanwhile
    return found
