"""One readable batch script: submitted as an array it runs the tasks, submitted once more behind it it publishes.

Slurm itself does the rest: a lost or preempted element is requeued and goes on with its share of the tasks, `finalize`
runs when the array has ended, however it ended (`afterany`: with `afterok` one failed element would strand it for
ever), and says what is missing. The script and the array's logs lie below `.work` and go with it; the log of
`finalize` lies beside the directory.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sft_shards.formats import sbatch
from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.files import atomic_write
from sft_shards.formats.shards.manifest import NAME
from sft_shards.preprocess.progress import Progress
from sft_shards.preprocess.tasks.plan import Plan
from sft_shards.preprocess.tasks.workdir import WORK, is_finished

CALLER = "--engine slurm"
POLL = 2.0
"""Seconds between two looks at the queue."""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """How a job is put before Slurm."""

    array: int
    """Elements of the array; any number does, whatever the number of tasks."""
    workers: int
    """Processes, and CPUs, of an element."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The site's own options of sbatch: partition, account, time, container, ...; an empty value for a flag."""
    setup: str = ""
    """Shell lines before the command, such as `module load python`."""
    max_rejects: str | None = None

    def script(self, output: Path) -> str:
        """The batch script."""
        folder = output.resolve() / WORK / "slurm"
        own = {
            "job-name": "sft-shards",
            "array": f"0-{self.array - 1}",
            "ntasks": "1",
            "cpus-per-task": str(self.workers),
            "chdir": os.getcwd(),
            "output": f"{folder}/%A_%a.log",
            "requeue": "",
            "open-mode": "append",
        }
        every = {**own, **self.options}
        target = shlex.quote(str(output.resolve()))
        limit = f" --max-rejects {shlex.quote(self.max_rejects)}" if self.max_rejects else ""
        command = self._command()
        return "\n".join(
            (
                *sbatch.head(every),
                "",
                "# As an array this runs the tasks of the plan, each element its share; finished ones are passed over:",
                "#     sbatch SCRIPT",
                "# Then, once, it checks them and writes the manifest:",
                "#     sbatch --array=0 --cpus-per-task=1 --dependency=afterany:JOB SCRIPT finalize",
                "set -eu",
                *([self.setup] if self.setup else []),
                'if [ "${1:-tasks}" = finalize ]; then',
                f"    exec {command} finalize --output {target}{limit}",
                "fi",
                f"exec {command} task --output {target} --workers {self.workers}",
                "",
            )
        )

    def _command(self) -> str:
        """This installation's command; the one on the path where a container or the setup brings its own."""
        own = Path(sys.executable).with_name("sft-preprocess")
        if self.setup or any(key.startswith("container") for key in self.options) or not own.exists():
            return "sft-preprocess"
        return shlex.quote(str(own))

    def submit(self, output: Path) -> tuple[str, str]:
        """Write the script and submit it twice; the numbers of the array and of finalize.

        Raises:
            UsageError: there is no Slurm here, or it refuses the options.
        """
        folder = output.resolve() / WORK / "slurm"
        folder.mkdir(exist_ok=True)
        path = folder / "job.sbatch"
        with atomic_write(path, scratch=output / WORK) as file:
            file.write(self.script(output).encode("utf-8"))
        tasks = sbatch.submit(CALLER, str(path))
        log = f"{output.resolve()}.finalize-%j.log"
        last = sbatch.submit(
            CALLER,
            "--array=0",
            "--cpus-per-task=1",
            f"--dependency=afterany:{tasks}",
            f"--output={log}",
            str(path),
            "finalize",
        )
        return tasks, last


def follow(plan: Plan, output: Path, jobs: tuple[str, str]) -> None:
    """Show how far the tasks are until Slurm has no more of these jobs.

    Raises:
        DataError: they ended and the directory is not complete.
    """
    with Progress(tasks=len(plan.tasks), size=sum(task.bytes for task in plan.tasks)) as progress:
        counted: set[int] = set()
        while _in_queue(jobs):
            for task in plan.tasks:
                if task.number not in counted and is_finished(output, task.number):
                    counted.add(task.number)
                    progress.task_done()
                    progress.add(0, 0, 0, task.bytes)
            time.sleep(POLL)
    if not (output / NAME).exists():
        raise DataError(
            f"{output}: Slurm's jobs {' and '.join(jobs)} ended and the directory is not complete; "
            f"see {output}/{WORK}/slurm and {output}.finalize-*.log, then give the same command again"
        )


def _in_queue(jobs: tuple[str, str]) -> bool:
    """Whether Slurm still has one of the jobs. It forgets jobs that ended, so all are asked for and looked through."""
    numbers = set(sbatch.call(CALLER, "squeue", "-h", "-o", "%A %F").split())
    return bool(numbers & set(jobs))
