"""Tasks on Ray: one Ray task for each task of the plan, on a cluster that is there or on this machine.

Ray repeats what a lost node was running (`max_retries`); only what a task leaves on the shared file system counts. The
output folder and the inputs must have the same paths on every node.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from sft_shards.formats.errors import DataError, UsageError, first_line
from sft_shards.preprocess.engines.engine import EngineJob
from sft_shards.preprocess.engines.worker_log import last_line
from sft_shards.preprocess.options import Option
from sft_shards.preprocess.runtime import one_thread, without_torch

if TYPE_CHECKING:
    from sft_shards.formats.shards import Manifest
    from sft_shards.preprocess.engines.worker import Job
    from sft_shards.preprocess.tasks.plan import Plan

IN_FLIGHT = 10_000
"""Tasks that Ray is given at a time."""
WORK = ".work/ray"
"""Where tasks write their standard error while they run, below the output folder."""
_jobs: dict[str, Job] = {}
"""The jobs that this worker of Ray has loaded, by output folder."""


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Runs the tasks on Ray, a CPU each; the fields are the values of the options."""

    ray_address: str | None
    """Address of a cluster (`auto`, `HOST:PORT`, `ray://…`); None to start Ray on this machine."""

    options: ClassVar[Sequence[click.Option]] = (
        Option(["--ray-address"], default_words="start Ray here", help="A running cluster, such as auto or HOST:6379."),
    )

    def run(self, job: EngineJob) -> Manifest:
        """Run a job from its files to a complete directory.

        Raises:
            UsageError: Ray is not installed, or no cluster answers.
            DataError: a task failed, or lost its worker too often.
        """
        return job.run(lambda plan, _tokenizer, folder: run_ray(plan, folder, self.ray_address, job.workers))

    def script(self, job: EngineJob) -> None:
        """Nothing is submitted."""


def run_ray(plan: Plan, output: Path, address: str | None, workers: int | None) -> None:
    """Run every task of a plan that is not finished.

    Args:
        address: as `Ray.ray_address`.
        workers: CPUs of a Ray that is started here; None for all.

    Raises:
        UsageError: Ray is not installed, or no cluster answers.
        DataError: a task failed, or lost its worker too often.
    """
    from sft_shards.preprocess.tasks.workdir import is_finished

    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray: Ray is not installed; pip install 'sft-shards[ray]'") from None
    todo = [task.number for task in plan.tasks if not is_finished(output, task.number)]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    if address:
        _check_address(address)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:
        raise UsageError(
            f"--ray-address {address}: no Ray there ({first_line(error)}); start one with 'ray start'"
        ) from None
    try:
        _run(ray, plan, output, todo)
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """See that something listens at HOST:PORT: where nothing does, Ray ends the whole process."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--ray-address {address}: no Ray there ({reason}); start one with 'ray start'") from None


def _run(ray: Any, plan: Plan, output: Path, numbers: list[int]) -> None:
    from sft_shards.preprocess.engines.crew import ATTEMPTS
    from sft_shards.preprocess.progress import Progress

    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)(_run_task)
    size = sum(task.bytes for task in plan.tasks)
    passed = size - sum(plan.tasks[number].bytes for number in numbers)
    done = len(plan.tasks) - len(numbers)
    folder, working = os.path.abspath(output), os.getcwd()
    with Progress(tasks=len(plan.tasks), done=done, size=size, passed=passed) as progress:
        running: dict[Any, int] = {}
        while numbers or running:
            while numbers and len(running) < IN_FLIGHT:
                number = numbers.pop(0)
                running[remote.remote(folder, working, number)] = number
            ready, _ = ray.wait(list(running), num_returns=1)
            number = running.pop(ready[0])
            try:
                records, tokens, rejects = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, (DataError, UsageError)) else error from None
            except ray.exceptions.RayError as error:
                said = _last_line(output, number)
                reason = said or str(error).strip().splitlines()[0][:200]
                raise DataError(
                    f"{plan.tasks[number].source.path}: task {number} lost its worker {ATTEMPTS} times ({reason})"
                    f"{'' if said else '; out of memory? give Ray fewer CPUs'}"
                ) from None
            progress.add(records, tokens, rejects, plan.tasks[number].bytes)
            progress.task_done()


def _last_line(output: Path, number: int) -> str:
    from sft_shards.formats.shards.contents import read_inside

    try:
        return last_line(read_inside(output, f"{WORK}/{number:05d}.stderr"))
    except (OSError, DataError):
        return ""


@contextmanager
def _stderr_in(output: Path, number: int) -> Iterator[None]:
    """Have standard error in a file of the task for a while; it stays only if the process dies meanwhile."""
    from sft_shards.formats.shards.contents import folder_inside, handle_inside

    path = folder_inside(output, WORK) / f"{number:05d}.stderr"
    handle = handle_inside(output, f"{WORK}/{path.name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    before = os.dup(2)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        path.unlink(missing_ok=True)


def _run_task(output: str, working: str, number: int) -> tuple[int, int, int]:
    """In a worker of Ray: run one task, and return its records, tokens and rejects."""
    without_torch()
    one_thread()
    if os.path.isdir(working):
        os.chdir(working)
    counts = [0, 0, 0]

    def add(records: int, tokens: int, rejects: int, _size: int) -> None:
        counts[0] += records
        counts[1] += tokens
        counts[2] += rejects

    with _stderr_in(Path(output), number):
        from sft_shards.preprocess.engines.worker import Job

        if output not in _jobs:
            _jobs[output] = Job(Path(output))
        _jobs[output].run(number, add)
    return counts[0], counts[1], counts[2]
