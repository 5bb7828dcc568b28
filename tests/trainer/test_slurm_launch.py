"""Many nodes through Slurm: what the batch script says, and a real cluster of two nodes that takes them away."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import SlurmCluster
from toy import TOY_MODEL, losses, random_pairs, sft_train, write_shards

STEPS = 150
MODEL = [*TOY_MODEL, "--seq-length=64", "--global-batch-size=4", "--lr=3e-3", f"--train-iters={STEPS}"]
MODEL += ["--use-distributed-optimizer", "--eval-interval=1000", "--save-interval=1000"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": random_pairs(60, seed=1)})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("cluster") / "slurm") as running:
        yield running


def submit(cluster: SlurmCluster, shards: Path, *flags: str) -> tuple[str, Path]:
    done = sft_train("--shards", shards, "--device=cpu", "--slurm", "--nodes=2", "--slurm-option=partition=cpu", "--",
                     *MODEL, *flags, **cluster.environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"submitted (\d+): 2 node\(s\); script \S+, log (\S+)\n", done.stdout)
    assert found, done.stdout
    return found[1], Path(found[2])


def await_step(cluster: SlurmCluster, log: Path, step: int) -> None:
    until = time.monotonic() + 90
    while not log.exists() or step not in losses(log.read_text()):
        assert time.monotonic() < until, log.read_text() if log.exists() else cluster.run("squeue")
        time.sleep(0.05)


def test_nodes_that_are_taken_away_change_no_loss(cluster: SlurmCluster, shards: Path, tmp_path: Path) -> None:
    save = tmp_path / "checkpoint"
    number, log = submit(cluster, shards, f"--save={save}", f"--load={save}")
    straight = subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", "--shards", str(shards), "--device=cpu", "--nproc=2", "--", *MODEL],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    await_step(cluster, log, 10)
    cluster.run("scancel", "--signal=USR1", number)
    cluster.await_end(number)
    said = log.read_text()
    (saved,) = (int(step) for step in re.findall(r"successfully saved checkpoint from iteration +(\d+)", said)[:1])
    assert 10 <= saved < STEPS
    assert "stopped by SIGUSR1; the same call" in said
    assert len(re.findall(rf"sft-train: job {number}, restarted \d times", said)) == 2
    assert "restarted 1 times" in said
    assert f"loading distributed checkpoint from {save} at iteration {saved}" in said or f"iteration {saved}" in said
    expected = losses(straight.communicate(timeout=120)[0])
    found = losses(said)
    assert list(found) == list(range(1, STEPS + 1))
    steps = [step for step in expected if step != saved + 2]  # Megatron's second line shows the mean of two steps
    np.testing.assert_allclose([found[s] for s in steps], [expected[s] for s in steps], rtol=2e-5)


def test_cancelled_is_cancelled(cluster: SlurmCluster, shards: Path, tmp_path: Path) -> None:
    save = tmp_path / "checkpoint"
    number, log = submit(cluster, shards, f"--save={save}", f"--load={save}", "--train-iters=100000")
    await_step(cluster, log, 3)
    cluster.run("scancel", number)
    cluster.await_end(number)
    time.sleep(2)
    assert "JobState=CANCELLED" in cluster.run("scontrol", "show", "job", number)
