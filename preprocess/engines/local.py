"""Tasks on this machine: in this process, or in several (see `crew`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.engines.engine import EngineJob
from sft_shards.preprocess.runtime import can_fork

if TYPE_CHECKING:
    from sft_shards.formats.shards import Manifest
    from sft_shards.preprocess.tasks.plan import Plan, Task
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

BYTES_PER_WORKER = 32 << 20
"""Input below which one more process takes longer to start than it saves."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """Runs the tasks on this machine; it has no options of its own."""

    options: ClassVar[Sequence[click.Option]] = ()

    def run(self, job: EngineJob) -> Manifest:
        """Run a job from its files to a complete directory."""
        return job.run(
            lambda plan, tokenizer, folder: run_local(plan, folder, tokenizer, job.workers),
            lambda plan, tokenizer, folder: begin_local(plan, folder, tokenizer, job.workers),
        )

    def script(self, job: EngineJob) -> None:
        """Nothing is submitted."""


def default_workers() -> int:
    """Count the CPUs that this process may use; in a Slurm job, those of one of its tasks."""
    cpus = len(os.sched_getaffinity(0))
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cpus, int(given)) if given.isdigit() and int(given) else cpus


def begin_local(plan: Plan, output: Path, tokenizer: Tokenizer, workers: int | None = None) -> None:
    """Begin to load what `run_local` will need, in another thread or in the server that workers are forked from."""
    from sft_shards.preprocess.engines.crew import start_server
    from sft_shards.preprocess.tokenizer.backends import load_ahead

    count = _worker_count(_unfinished(plan.tasks, output), workers)
    if count > 1 and not can_fork():
        start_server(output)
    elif count:
        load_ahead(plan.engine, tokenizer)


def run_local(
    plan: Plan, output: Path, tokenizer: Tokenizer, workers: int | None = None, tasks: Sequence[Task] | None = None
) -> None:
    """Run every task (of `tasks`, or of the plan) that is not finished.

    Args:
        workers: processes; None for one per CPU, but no more than the size of the input is worth.

    Raises:
        DataError: a task failed, or lost its worker too often.
    """
    from sft_shards.preprocess.engines.crew import Crew
    from sft_shards.preprocess.engines.worker import share
    from sft_shards.preprocess.progress import Progress
    from sft_shards.preprocess.tasks.task import planned_pipeline, run_task
    from sft_shards.preprocess.tokenizer.backends import wait_for_loading

    chosen = plan.tasks if tasks is None else tasks
    todo = _unfinished(chosen, output)
    if not todo:
        return
    size, left = (sum(task.bytes for task in some) for some in (chosen, todo))
    count = _worker_count(todo, workers)
    if count > 1:
        wait_for_loading()  # a process with threads is not forked
    here = count == 1 or can_fork()
    pipeline = planned_pipeline(plan, tokenizer) if here else None  # before the clock of the progress runs
    if count > 1 and pipeline is not None:
        share(plan, pipeline)
    with Progress(tasks=len(chosen), done=len(chosen) - len(todo), size=size, passed=size - left) as progress:
        if count > 1 or pipeline is None:
            Crew(output, count, progress).run(todo)
            return
        for task in todo:
            try:
                run_task(plan, task, output, pipeline, progress.add)
            except MemoryError:
                raise DataError(
                    f"{task.source.path}: out of memory in task {task.number}; free some, or lower --max-record-bytes"
                ) from None
            progress.task_done()


def _unfinished(tasks: Sequence[Task], output: Path) -> list[Task]:
    from sft_shards.preprocess.tasks.workdir import is_finished

    return [task for task in tasks if not is_finished(output, task.number)]


def _worker_count(todo: Sequence[Task], workers: int | None) -> int:
    """Return how many processes share some tasks: as many as asked for, or as the size of the input is worth."""
    if workers is None:
        workers = min(default_workers(), 1 + sum(task.bytes for task in todo) // BYTES_PER_WORKER)
    return min(workers, len(todo))
