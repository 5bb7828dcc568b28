"""Many nodes through Slurm: what the batch script says, and a real cluster of two nodes that takes them away."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import SlurmCluster
from toy_runs import PLUGIN, TOY_MODEL, Run, losses, random_pairs, run_forked, sft_train, write_shards

pytestmark = pytest.mark.slurm

STEPS, TOLD = 30, 5
MODEL = [*TOY_MODEL, "--seq-length=64", "--global-batch-size=4", "--lr=3e-3", f"--train-iters={STEPS}"]
MODEL += ["--ckpt-format=torch", "--eval-interval=1000", "--save-interval=1000"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": random_pairs(60, seed=1)})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("cluster") / "slurm") as running:
        yield running


def slurm(shards: Path, *words: object, **environment: str) -> str:
    """What `sft-train --slurm` on two nodes prints."""
    where = ["--shards", shards, "--device=cpu", "--slurm", "--nodes=2", "--slurm-option=partition=cpu"]
    done = sft_train(*where, *words, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def preempt(cluster: SlurmCluster, folder: Path) -> str:
    """Submit a job that takes the nodes of any other; its number."""
    script = folder / "urgent"
    script.write_text("#!/bin/bash\nsleep 1\n")
    return cluster.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--output=/dev/null", script).strip()


def test_nodes_that_are_taken_away_change_no_loss(cluster: SlurmCluster, shards: Path, tmp_path: Path) -> None:
    save = tmp_path / "checkpoint"
    checkpoints = [f"--save={save}", f"--load={save}"]
    held = {"PYTHONPATH": str(PLUGIN), "TOY_HOLD": str(TOLD + 1), "OMP_NUM_THREADS": "1"}
    said = slurm(shards, "--stage=held", "--", *MODEL, *checkpoints, **{**cluster.environment, **held})
    submitted = re.fullmatch(r"submitted (\d+): 2 node\(s\); script \S+, log (\S+)\n", said)
    assert submitted, said
    number, log = submitted[1], Path(submitted[2])
    cluster.await_log(number, log, f"iteration +{TOLD}/")
    preempt(cluster, tmp_path)
    cluster.await_log(number, log, "restarted 1 times", seconds=180)
    cluster.await_end(number)
    said = log.read_text()
    saved = int(re.findall(r"successfully saved checkpoint from iteration +(\d+)", said)[0])
    assert saved == TOLD + 1, "the step that waited for the signal"
    assert said.count(f"stopped by SIGTERM; the same call with --load {save} goes on") == 2, "one on each node"
    assert re.findall(rf"sft-train: job {number}, restarted (\d) times, n\[1-2\]", said) == ["0", "1"]
    assert f"at iteration {saved}\n" in said
    (straight,) = run_forked(tmp_path, [Run(shards=[shards], flags=MODEL, nproc=2)])
    expected, found = losses(straight), losses(said)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    steps = [step for step in expected if step != saved + 2]  # Megatron's second line shows the mean of two steps
    np.testing.assert_allclose([found[s] for s in steps], [expected[s] for s in steps], rtol=2e-5)
    assert np.abs(np.diff([expected[s] for s in steps])).min() > 1e-4, "steps are told apart"


COMMAND = """#!/bin/bash
echo "called: $*"
case "$(cat {folder}/do)" in
    again) echo end > {folder}/do; exit 200 ;;
    fail) exit 1 ;;
    sleep) exec sleep 100 ;;
    preempted) trap 'echo end > {folder}/do; echo saved; exit 200' TERM; sleep 100 & wait ;;
esac
"""


def test_what_is_queued_again_and_what_is_not(cluster: SlurmCluster, shards: Path, tmp_path: Path) -> None:
    """The script of a job whose `sft-train` does as it is told."""
    program = tmp_path / "sft-train"
    program.write_text(COMMAND.format(folder=tmp_path))
    program.chmod(0o755)
    setup = f"PATH={tmp_path}:$PATH"
    script = tmp_path / "job"
    script.write_text(slurm(shards, "--dry-run", "--slurm-setup", setup, "--slurm-option=comment=it's 2", "--", *MODEL))

    def ended(what: str) -> tuple[str, str]:
        """State and log of a job, told to do `what`."""
        (tmp_path / "do").write_text(what)
        log = tmp_path / f"{what}.log"
        number = cluster.run("sbatch", "--parsable", f"--output={log}", script).strip()
        # Where the first node fails at once, the other may be ended before it says a word.
        cluster.await_log(number, log, "called" if what == "fail" else "called(.|\n)*called")
        if what == "again":
            cluster.await_log(number, log, "restarted 1 times")
        if what == "sleep":
            cluster.run("scancel", number)
        if what == "preempted":
            other = preempt(cluster, tmp_path)
            cluster.await_log(number, log, "saved.*\n(.*\n)*.*restarted 1 times")
            assert not cluster.states(other), "it had the nodes in between"
        cluster.await_end(number)
        return cluster.run("scontrol", "show", "job", number), log.read_text()

    state, log = ended("again")
    assert "JobState=COMPLETED" in state
    assert "Restarts=1" in state
    assert "Comment=it's 2" in state
    address = rf"--master-addr {socket.gethostname()} --master-port \d+ --shards {shards}"
    address += " --random-weights --device cpu -- --num-layers=2"
    for rank in (0, 1):
        assert len(re.findall(f"called: --nnodes 2 --node-rank {rank} {address}", log)) == 2
    state, log = ended("preempted")
    assert "JobState=COMPLETED" in state
    assert log.count("saved") == 2
    assert re.findall(r"restarted (\d) times", log) == ["0", "1"]
    state, log = ended("fail")
    assert "JobState=FAILED" in state
    assert "Restarts=0" in state
    state, log = ended("sleep")
    assert "JobState=CANCELLED" in state
    assert "Restarts=0" in state
