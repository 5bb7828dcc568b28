"""Running tasks on Ray: one Ray task for each task of the plan, on a cluster that is there or on this machine.

Ray brings back what a lost node had (`max_retries`); what a task leaves on the shared file system is all that
counts. The output folder and the inputs must have the same paths on every node.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.preprocess.engines.local import ATTEMPTS
from sft_shards.preprocess.engines.worker import Job
from sft_shards.preprocess.progress import Progress
from sft_shards.preprocess.runtime import one_thread, without_torch
from sft_shards.preprocess.tasks.plan import Plan
from sft_shards.preprocess.tasks.workdir import is_finished

_jobs: dict[str, Job] = {}
IN_FLIGHT = 10_000
"""Tasks that Ray is given at a time."""


def run_ray(plan: Plan, output: Path, *, address: str | None = None, workers: int | None = None) -> None:
    """Run every task that is not finished, a CPU each.

    Args:
        address: of a cluster (`auto`, `HOST:PORT`, `ray://…`); without, Ray is started on this machine.
        workers: CPUs of a Ray that is started here.

    Raises:
        UsageError: Ray is not installed, or no cluster answers.
        DataError: a task failed, or lost its worker too often.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray: Ray is not installed; pip install 'sft-shards[ray]'") from None
    todo = [task for task in plan.tasks if not is_finished(output, task.number)]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    if address:
        _check_address(address)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"--ray-address {address}: no Ray there ({reason}); start one with 'ray start'") from None
    try:
        _run(ray, plan, output, [task.number for task in todo])
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """See that somebody listens at HOST:PORT: Ray ends the whole process where nobody does."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--ray-address {address}: no Ray there ({reason}); start one with 'ray start'") from None


def _run(ray: Any, plan: Plan, output: Path, numbers: list[int]) -> None:
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)(_run_task)
    size = sum(task.bytes for task in plan.tasks)
    passed = size - sum(plan.tasks[number].bytes for number in numbers)
    done = len(plan.tasks) - len(numbers)
    where, there = os.path.abspath(output), os.getcwd()
    with Progress(tasks=len(plan.tasks), done=done, size=size, passed=passed) as progress:
        running: dict[Any, int] = {}
        while numbers or running:
            while numbers and len(running) < IN_FLIGHT:
                number = numbers.pop(0)
                running[remote.remote(where, there, number)] = number
            ready, _ = ray.wait(list(running), num_returns=1)
            number = running.pop(ready[0])
            try:
                counts = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, (DataError, UsageError)) else error from None
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0][:200]
                raise DataError(
                    f"{plan.tasks[number].source.path}: task {number} lost its worker {ATTEMPTS} times ({reason}); "
                    "out of memory? give Ray fewer CPUs"
                ) from None
            records, tokens, rejects = counts
            progress.add(records, tokens, rejects, plan.tasks[number].bytes)
            progress.task_done()


def _run_task(output: str, there: str, number: int) -> tuple[int, int, int]:
    """In Ray's worker: run one task; its records, tokens and rejects."""
    without_torch()
    one_thread()
    if os.path.isdir(there):
        os.chdir(there)
    if output not in _jobs:
        _jobs[output] = Job(Path(output))
    counts = [0, 0, 0]

    def add(records: int, tokens: int, rejects: int, _size: int) -> None:
        counts[0] += records
        counts[1] += tokens
        counts[2] += rejects

    _jobs[output].run(number, add)
    return counts[0], counts[1], counts[2]
