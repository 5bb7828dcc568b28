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
from toy_runs import PLUGIN, TOY_MODEL, losses, random_pairs, sft_train, turn, write_shards

import sft_shards

pytestmark = pytest.mark.megatron

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


def test_a_run_says_what_it_trains_on(shards: Path, tmp_path: Path) -> None:
    other = write_shards(
        tmp_path / "other", {"train": random_pairs(15, seed=5, answer=(1, 12)), "valid": random_pairs(3, seed=6)}
    )
    own = ("--shards", f"{other}:0.4", "--epochs", 1.5, "--cache-dir", tmp_path / "cache")
    schedule = ["--eval-interval=4", f"--save={tmp_path / 'checkpoint'}"]
    done = train(shards, *schedule, own=own)
    said = done.stderr
    assert "1 without a trained token left out" in said
    assert re.search(r"; \d+ cut at 33 tokens", said)
    assert re.search(r"train: (\d+) samples, 9\d\.\d\d% full: 36 conversations, [\d,]+ positions", said)
    assert "isolation: sdpa (the CPU has no other)" in said
    packs = [int(count) for count in re.findall(r"in (\d+) samples x", said)]
    assert len(packs) == 2
    assert re.search(r"other: 15 conversations in \d+ samples x 0\.4 an epoch", said)
    samples = packs[0] * 3 // 2 + packs[1] * 3 // 5
    steps = -(-samples // 4)
    assert f"{steps} steps of 4 = {steps * 4} samples" in said
    assert list(losses(done.stdout)) == list(range(1, steps + 1))
    assert re.search(r"validation: (\d+) of \1 samples", said)
    at_end = re.findall(rf"validation loss at iteration {steps} .*", done.stdout)[-1]
    values = dict(re.findall(r"(lm loss\S*) value: (\S+)", at_end))
    assert sorted(values) == ["lm loss", "lm loss/other", f"lm loss/{shards.name}"]
    low, high = sorted(float(value) for name, value in values.items() if name != "lm loss")
    assert low < float(values["lm loss"]) < high, "token-weighted over both"
    assert len(list((tmp_path / "cache").iterdir())) == 12, "scan, targets and plan of two splits of two directories"
    assert (tmp_path / "checkpoint/latest_checkpointed_iteration.txt").read_text().strip() == str(steps)

    call = ["--shards", shards, "--device", "cpu", "--", *FLAGS, f"--load={tmp_path / 'checkpoint'}"]
    longer = sft_train(*call, "--train-iters=100")
    assert longer.returncode == 2
    assert "--override-opt-param-scheduler" in longer.stderr.splitlines()[-1]


def test_the_first_batches_are_written_as_a_page(tmp_path: Path) -> None:
    data = Path(__file__).parents[1] / "data"
    made = sft_shards.run(data / "openai_tr.jsonl", output=tmp_path / "shards", tokenizer=data / "tokenizer", workers=1)
    own = ("--log-batches", 1, "--random-weights")
    train(made.path, "--train-iters=1", f"--save={tmp_path / 'out'}", own=own)
    page = (tmp_path / "out" / "batches.html").read_text("utf-8")
    assert page.count('<details class="card"') == 4, "a global batch"
    assert "<mark>" in page
    wrong = sft_train("--shards", made.path, "--device", "cpu", "--log-batches", 25, "--", *FLAGS)
    assert wrong.returncode == 2
    assert "--log-batches 25" in wrong.stderr


def test_without_a_validation_split(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "shards", {"train": [*random_pairs(4, seed=1), turn([11], [21] * 60)]})
    (tmp_path / "run.yaml").write_text(f"shards: {path}\ndevice: cpu\noverlong: drop\ntrain-iters: 2\nbf16: true\n")
    done = sft_train("--config", tmp_path / "run.yaml", "--", *FLAGS, "--eval-iters=3")
    assert done.returncode == 0, done.stderr
    assert "no validation split, so no validation loss" in done.stderr
    assert "longer than 33 tokens dropped" in done.stderr
    assert "validation loss" not in done.stdout
    assert list(losses(done.stdout)) == [1, 2]


def test_wrong_values_in_shards_are_one_line_before_training(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "shards", {"train": random_pairs(4, seed=1)})
    masks = path / "train" / "loss_mask" / "00000.bin"
    masks.write_bytes(b"\2" + masks.read_bytes()[1:])
    words = ["--shards", path, "--device", "cpu", "--cache-dir", tmp_path / "cache", "--dry-run"]
    done = sft_train(*words, "--", *FLAGS, "--train-iters=2")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "shard 00000 of split train: mask value 2 is neither 0 nor 1" in done.stderr
    done = sft_train(*words, "--skip-scan", "--", *FLAGS, "--train-iters=2")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("told", "status", "words", "saved"),
    [
        (signal.SIGINT, 130, "sft-train: interrupted", False),
        (signal.SIGUSR1, 200, "sft-train: stopped by SIGUSR1; the same call with --load", True),
    ],
    ids=["interrupted", "told to stop"],
)
def test_it_ends_as_told_and_leaves_nobody_behind(
    shards: Path, tmp_path: Path, told: signal.Signals, status: int, words: str, saved: bool
) -> None:
    command = [
        sys.executable,
        "-m",
        "sft_shards.trainer",
        "--random-weights",
        "--shards",
        shards,
        "--device",
        "cpu",
        "--nproc",
        2,
        "--",
    ]
    mark = f"--wandb-exp-name=ended-{os.getpid()}-{told}"
    with subprocess.Popen(
        [*map(str, command), *FLAGS, "--train-iters=100000", f"--save={tmp_path}", "--ckpt-format=torch", mark],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "lm loss" in line:
                break
        assert len(having(mark)) == 3, "the command and two workers"
        for pid in having(mark) if saved else [process.pid]:  # Slurm may send it to all
            os.kill(int(pid), told)
        process.stdout.read()
        said = process.stderr.read().splitlines()
    assert process.returncode == status
    assert said[-1].startswith(words)
    assert (tmp_path / "latest_checkpointed_iteration.txt").exists() is saved
    assert not any("Traceback" in line for line in said)
    deadline = time.monotonic() + 120
    while having(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert having(mark) == []


def test_killed_outright_it_leaves_nobody_behind(shards: Path, tmp_path: Path) -> None:
    """SIGKILL reaches the command alone, and nobody can pass it on: the kernel ends the workers."""
    words = ["--random-weights", "--shards", shards, "--device", "cpu", "--nproc", 2]
    mark = f"SFT_SHARDS_TEST=killed-{os.getpid()}-{tmp_path.name}"
    name, _, value = mark.partition("=")
    with subprocess.Popen(
        [sys.executable, "-m", "sft_shards.trainer", *map(str, words), "--", *FLAGS, "--train-iters=100000",
         f"--save={tmp_path}", "--save-interval=3"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1", name: value},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while not (tmp_path / "latest_checkpointed_iteration.txt").exists():
            assert process.stdout.readline(), "it ended by itself"
        assert len(having(mark, "environ")) > 2, "the command and two workers"
        process.kill()
        process.stdout.read()  # until nobody holds the pipe any more
    deadline = time.monotonic() + 120
    while having(mark, "environ") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert having(mark, "environ") == []


@pytest.mark.parametrize(
    ("death", "last"),
    [
        ("raise", "sft-train: worker 0 failed: RuntimeError: no kernel image is available"),
        ("abort", "sft-train: worker 0 was ended by SIGABRT; the last line on standard error: terminate called: no HIP "
                  "device"),
    ],
)  # fmt: skip
def test_a_worker_that_dies_has_the_last_word(shards: Path, death: str, last: str) -> None:
    call = ["--shards", shards, "--device", "cpu", "--stage", "dying", "--", *FLAGS, "--train-iters=2"]
    done = sft_train(*call, PYTHONPATH=str(PLUGIN), TOY_DEATH=death)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == last
    assert ("Traceback" in done.stderr) == (death == "raise"), "the traceback of somebody else's code is kept"


def having(mark: str, where: str = "cmdline") -> list[str]:
    """Processes with `mark` in their command line, or in their `environ`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / where).read_text():
                found.append(folder.name)
        except OSError:
            continue  # it ended meanwhile
    return found
