"""One worker process of this machine: loads the plan and the tokenizer once, then runs one task after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.runtime import one_thread
from sft_shards.preprocess.tasks.plan import Plan, check_versions, planned_tokenizer
from sft_shards.preprocess.tasks.task import planned_pipeline, run_task

JOB = "SFT_SHARDS_JOB"
"""Environment: the output folder whose job is loaded before workers are forked."""

_worker: dict[str, Any] = {}
_prepared: list[tuple[Plan, Pipeline]] = []


def prepare(output: Path) -> None:
    """Load what a planned job works with, for all workers that are forked from this process."""
    plan = Plan.read(output)
    _prepared.append((plan, planned_pipeline(plan, planned_tokenizer(plan, output))))


def start(output: str, counts: Connection) -> None:
    """Get ready for tasks of the job at `output`; what they count goes down the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    one_thread()
    _worker.update(job=Job(Path(output)), counts=counts)


def run(number: int) -> None:
    """Run one task. A worker that is out of memory dies, as it would by the kernel's hand."""
    try:
        _worker["job"].run(number, lambda *since: _worker["counts"].send(since))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


class Job:
    """A planned job as a worker sees it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.plan = Plan.read(output)
        check_versions(self.plan)
        ready = (pipeline for plan, pipeline in _prepared if plan == self.plan)
        self.pipeline = next(ready, None) or planned_pipeline(self.plan, planned_tokenizer(self.plan, output))

    def run(self, number: int, report: Any) -> None:
        """Run one task of the plan."""
        run_task(self.plan, self.plan.tasks[number], self.output, self.pipeline, report)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
