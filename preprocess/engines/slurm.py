"""A job on Slurm: one readable batch script, submitted as an array for the tasks and once more to publish.

Slurm does the rest. A lost or preempted element is requeued and goes on with its share of the tasks. `finalize` runs
when the array has ended, however it ended (`afterany`: with `afterok` one failed element would leave it pending for
ever), and says what is missing. The script and the array's logs lie below `.work` and are removed with it; the log of
`finalize` lies beside the directory.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from sft_shards.formats import sbatch
from sft_shards.formats.errors import DataError
from sft_shards.formats.scripts import checked, checked_lines
from sft_shards.formats.terminal import say
from sft_shards.preprocess.engines.engine import ARRAY, EngineJob
from sft_shards.preprocess.options import Option

if TYPE_CHECKING:
    from sft_shards.formats.shards import Manifest
    from sft_shards.preprocess.tasks.plan import Plan

CALLER = "--engine slurm"
POLL = 2.0
"""Seconds between two looks at the queue."""
WORK = ".work/slurm"
"""Where the script and the array's logs lie, below the output folder."""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Submits an array and a job that publishes; the fields are the values of the options."""

    array: int
    """Elements of the array; any number will do, whatever the number of tasks."""
    slurm_option: Mapping[str, str]
    """The site's own options of sbatch by name; an empty value for a flag."""
    slurm_setup: str
    """Shell lines before the command."""
    follow: bool
    """Whether to wait for the end."""

    options: ClassVar[Sequence[click.Option]] = (
        ARRAY,
        Option(
            ["--slurm-option"],
            multiple=True,
            callback=lambda _context, _parameter, values: sbatch.site_options(values),
            metavar="KEY=VALUE",
            help="Option of sbatch, such as partition=cpu or time=8:00:00; repeatable.",
        ),
        Option(["--slurm-setup"], default="", help="Shell lines before the command, such as 'module load x'."),
        Option(["--follow"], is_flag=True, help="Wait for the end and show the progress."),
    )

    def run(self, job: EngineJob) -> Manifest | None:
        """Plan and submit. Returns the manifest if the job was finished before, or is when `follow` has seen its end.

        Raises:
            UsageError: there is no Slurm here, or it refuses the options.
            DataError: the jobs ended and the directory is not complete.
        """
        from sft_shards.formats.shards import Manifest

        if (manifest := job.finished()) is not None:
            return manifest
        plan = job.plan()
        folder = job.folder
        jobs = self._submit(job)
        say(
            f"submitted {jobs[0]} ({len(plan.tasks)} tasks, {self.array} elements), then {jobs[1]} to publish "
            f"{job.output}; logs in {folder}/{WORK} and {job.output}.finalize-{jobs[1]}.log",
            err=self.follow or job.as_json,
        )
        if not self.follow:
            return None
        _follow(plan, job.output, folder, jobs)
        return Manifest.read(job.output)

    def script(self, job: EngineJob) -> str:
        """Give the batch script, which runs the tasks, or publishes when its argument is `finalize`.

        Raises:
            UsageError: a value or the name of a folder holds a control character.
        """
        output, folder = (checked(path.resolve(), "--output") for path in (job.output, job.folder))
        setup = [checked_lines(self.slurm_setup, "--slurm-setup")] if self.slurm_setup else []
        workers = job.workers or 1
        own = {
            "job-name": "sft-shards",
            "array": f"0-{self.array - 1}",
            "ntasks": "1",
            "cpus-per-task": str(workers),
            "chdir": checked(os.getcwd(), "the working directory"),
            "output": f"{folder}/{WORK}/%A_%a.log",
            "requeue": "",
            "open-mode": "append",
        }
        target = shlex.quote(output)
        limit = f" --max-rejects {shlex.quote(job.max_rejects)}" if job.max_rejects else ""
        command = self._command()
        return "\n".join(
            (
                *sbatch.head({**own, **self.slurm_option}),
                "",
                "# As an array this runs the tasks of the plan, each element its share; finished ones are passed over:",
                "#     sbatch SCRIPT",
                "# Then, once, it checks them and writes the manifest:",
                "#     sbatch --array=0 --cpus-per-task=1 --dependency=afterany:JOB SCRIPT finalize",
                "set -eu",
                *setup,
                'if [ "${1:-tasks}" = finalize ]; then',
                f"    exec {command} finalize --output {target}{limit}",
                "fi",
                f"exec {command} task --output {target} --workers {workers}",
                "",
            )
        )

    def _command(self) -> str:
        """This installation's command; the one on the path where a container or the setup brings its own."""
        own = Path(sys.executable).with_name("sft-preprocess")
        if self.slurm_setup or any(key.startswith("container") for key in self.slurm_option) or not own.exists():
            return "sft-preprocess"
        return shlex.quote(checked(own, "the folder of sft-preprocess"))

    def _submit(self, job: EngineJob) -> tuple[str, str]:
        """Write the script and submit it twice; returns the job ids of the array and of finalize."""
        from sft_shards.formats.shards.contents import folder_inside
        from sft_shards.formats.shards.files import atomic_write

        folder = folder_inside(job.folder.resolve(), WORK)
        path = folder / "job.sbatch"
        with atomic_write(path, scratch=folder.parent) as file:
            file.write(self.script(job).encode("utf-8"))
        tasks = sbatch.submit(CALLER, str(path))
        last = sbatch.submit(
            CALLER,
            "--array=0",
            "--cpus-per-task=1",
            f"--dependency=afterany:{tasks}",
            f"--output={job.output.resolve()}.finalize-%j.log",
            str(path),
            "finalize",
        )
        return tasks, last


def _follow(plan: Plan, output: Path, folder: Path, jobs: tuple[str, str]) -> None:
    """Show the progress until Slurm has none of these jobs any more.

    Raises:
        DataError: they ended and the directory is not complete.
    """
    from sft_shards.preprocess.progress import Progress
    from sft_shards.preprocess.tasks.output import look
    from sft_shards.preprocess.tasks.replacement import working_folder
    from sft_shards.preprocess.tasks.workdir import is_finished

    with Progress(tasks=len(plan.tasks), size=sum(task.bytes for task in plan.tasks)) as progress:
        counted: set[int] = set()
        while _in_queue(jobs):
            for task in plan.tasks:
                if task.number not in counted and is_finished(folder, task.number):
                    counted.add(task.number)
                    progress.task_done()
                    progress.add(0, 0, 0, task.bytes)
            time.sleep(POLL)
    if not look(output).is_complete or working_folder(output) != output:
        log = Path(f"{output}.finalize-{jobs[1]}.log")
        raise DataError(
            f"{output}: Slurm's jobs {' and '.join(jobs)} ended and the directory is not complete"
            f"{_last_words(log)}; see {folder}/{WORK} and {log}, then give the same command again"
        )


def _last_words(log: Path) -> str:
    """The last line of a log in brackets, or nothing."""
    try:
        lines = log.read_text("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" ({last[:500]})" if last else ""


def _in_queue(jobs: tuple[str, str]) -> bool:
    """Whether Slurm still has one of the jobs. squeue fails for jobs that it has forgotten, so all are listed."""
    numbers = set(sbatch.call(CALLER, "squeue", "-h", "-o", "%A %F").split())
    return bool(numbers & set(jobs))
