"""Write and submit a batch script that trains on several nodes: `sft-train … --slurm --nodes N`.

Slurm starts one `sft-train` on each node, and each starts its own workers. If nodes are taken away or the time limit is
near, `sft-train` saves a checkpoint and ends with status 200 (see `preemption`), and the script requeues the job. A job
that failed is not requeued, because it would fail again.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sft_shards.formats import sbatch
from sft_shards.formats.errors import DataError
from sft_shards.formats.scripts import all_checked, checked, checked_lines
from sft_shards.formats.shards.files import atomic_write
from sft_shards.formats.terminal import say
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch.container import Container
from sft_shards.trainer.launch.nodes import Nodes
from sft_shards.trainer.launch.preemption import StoppedError
from sft_shards.trainer.mcore.compat import check_installed

NAME = "sft-train.sbatch"
ON_NODE = (
    'exec {command} --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" '
    '--master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" "$@"'
)
WIDTH = 100
"""Columns after which a command in the script is continued on the next line."""
REQUEUED = f"{StoppedError.exit_code} | 138 | 143"
"""Exit statuses after which the job is requeued: it saved a checkpoint, or a signal ended it before it trained."""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """How a job is submitted to Slurm."""

    nodes: int
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of sbatch that win over ours, such as partition, account or time; an empty value is a flag."""
    setup: str = ""
    """Shell lines before the command, such as `module load rocm`."""
    container: Container | None = None
    """What the command runs in on each node; None: directly on the node."""

    def script(self, job: Job, words: Sequence[str]) -> str:
        """Return the batch script.

        Args:
            job: the job, for its folders.
            words: the call of `sft-train` without the options that say where it runs.

        Raises:
            UsageError: a word of the call or the name of a folder holds a control character, or one that a container's
                mounts cannot hold.
        """
        words = all_checked(words, "the call")
        own = {
            "job-name": "sft-train",
            "nodes": str(self.nodes),
            "ntasks-per-node": "1",
            "chdir": checked(os.getcwd(), "the working directory"),
            "output": f"{folder(job)}/sft-train-%j.log",
            "requeue": "",
            "open-mode": "append",
            "signal": "USR1@120",
        }
        if job.device == "gpu" and not any(key.startswith(("gpus", "gres", "exclusive")) for key in self.options):
            own["exclusive"] = ""
        every = {**own, **self.options}
        on_node = ON_NODE.format(command=checked(self._command(), "the folder of sft-train"))
        around = all_checked(self.container.command(job), "the container") if self.container else []
        folders = (
            shlex.join(["mkdir", "-p", *map(str, self.container.folders_to_create(job))]) if self.container else ""
        )
        return "\n".join(
            (
                *sbatch.head(every),
                "",
                "# One sft-train on each node. At SIGUSR1 (before the time limit) or SIGTERM (nodes are taken away) it",
                "# saves a checkpoint and ends with status 200; then the job is requeued and resumes.",
                "set -e",
                "export MASTER_ADDR=$(hostname)  # this script runs on the first node",
                "export MASTER_PORT=$((15000 + SLURM_JOB_ID % 10000))",
                *([checked_lines(self.setup, "--slurm-setup")] if self.setup else []),
                *([folders] if folders else []),
                'echo "sft-train: job $SLURM_JOB_ID, restarted ${SLURM_RESTART_COUNT:-0} times, $SLURM_JOB_NODELIST"',
                "status=0",
                _shell_command(
                    ["srun", "--cpu-bind=none", "--kill-on-bad-exit=0", "--wait=60"],
                    around,
                    ["bash", "-c", on_node, "sft-train"],
                    words,
                )
                + " || status=$?",
                'case "$status" in',
                f'    {REQUEUED}) scontrol requeue "$SLURM_JOB_ID" ;;',
                "esac",
                'exit "$status"',
                "",
            )
        )

    def _command(self) -> str:
        """Return the command of this installation, or the one on the path if a container or the setup has its own."""
        if self.setup or self.container:
            return "sft-train"
        own = Path(sys.executable).with_name("sft-train")
        return shlex.join([str(own)] if own.exists() else [sys.executable, "-m", "sft_shards.trainer"])


def submit(job: Job, nproc: int | None, slurm: Slurm, words: Sequence[str], *, dry_run: bool) -> None:
    """Check the call as far as this machine can, write the script and submit it.

    Args:
        nproc: workers on each node; None: one per GPU, or one on the CPU.
        words: the call of `sft-train` that the script repeats on each node.
        dry_run: print the script and submit nothing.

    Raises:
        UsageError: the call is wrong, there is no Slurm here, or it refuses the options.
        DataError: the shards are, or do not fit the model.
    """
    for line in _check_call(job, nproc, Nodes(count=slurm.nodes)):
        say(f"sft-train: {line}", err=True)
    text = slurm.script(job, words)
    if dry_run:
        print(text, end="")
        return
    path = folder(job) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
    number = sbatch.submit("--slurm", str(path))
    say(f"submitted {number}: {slurm.nodes} node(s); script {path}, log {path.parent}/sft-train-{number}.log")


def _check_call(job: Job, nproc: int | None, nodes: Nodes) -> list[str]:
    """Check the call and return lines to show, or raise what is wrong with it."""
    said = []
    if not job.given("save") or job.given("save") != job.given("load"):
        said.append(
            "warning: a requeued job would start from the beginning; give --save DIR --load DIR with the same folder"
        )
    try:
        check_installed()
    except DataError:
        return [*said, "Megatron is not installed on this machine: its flags are checked when the job starts"]
    from sft_shards.trainer.launch.dry_run import check, notes
    from sft_shards.trainer.launch.launcher import plan

    planned = plan(job, nproc, nodes, here=False)
    return [*said, *notes(planned), *check(planned).summary]


def folder(job: Job) -> Path:
    """Return the folder of script and log: that of the checkpoints, else the working directory."""
    save = job.given("save")
    return Path(os.path.abspath(save if isinstance(save, str) else "."))


def _shell_command(*parts: Sequence[str]) -> str:
    """Return a shell command with each part on lines of its own, broken before options only."""
    lines = []
    for part in parts:
        line = ""
        for word in map(shlex.quote, part):
            if line and word.startswith("-") and len(line) + len(word) > WIDTH:
                lines.append(line)
                line = ""
            line += f" {word}" if line else word
        lines.append(line)
    return " \\\n    ".join(line for line in lines if line)
