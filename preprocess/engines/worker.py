"""One worker process of this machine: it runs one task after the other, with what was loaded before it was forked.

parent ──number of a task──▶ worker ──Counted, …, Finished or Failed──▶ parent
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from sft_shards.preprocess.engines.worker_log import redirect_worker
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.runtime import one_thread
from sft_shards.preprocess.tasks.lock import leave_locks
from sft_shards.preprocess.tasks.plan import Plan, check_versions, planned_tokenizer
from sft_shards.preprocess.tasks.task import Report, planned_pipeline, run_task

JOB = "SFT_SHARDS_JOB"
"""Environment: the output folder whose job is loaded before workers are forked."""

_prepared: list[tuple[Plan, Pipeline]] = []
"""What was loaded by the process that workers are forked from, whose memory they share."""


@dataclass(frozen=True)
class Counted:
    """What a task did since the last message, as `Progress.add` takes it."""

    records: int
    tokens: int
    rejects: int
    size: int
    """Bytes of input."""


@dataclass(frozen=True)
class Finished:
    """The task is finished."""


@dataclass(frozen=True)
class Failed:
    """The task cannot be finished, and the worker ends."""

    error: Exception
    trace: str
    """The traceback in the worker, as text."""


Message: TypeAlias = "Counted | Finished | Failed"


def prepare(output: Path) -> None:
    """Load what the tasks of a planned job need, for all workers that are forked from this process."""
    plan = Plan.read(output)
    share(plan, planned_pipeline(plan, planned_tokenizer(plan, output)))


def share(plan: Plan, pipeline: Pipeline) -> None:
    """Keep what was loaded for the tasks of a plan for all workers that are forked from this process."""
    _prepared.append((plan, pipeline))


def main(output: str, connection: Connection) -> None:
    """Run the tasks whose numbers come down the connection, until None comes. Ends early where a task fails.

    A worker that runs out of memory kills itself, as the kernel would, so that the parent has one case less.
    """
    redirect_worker()
    leave_locks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    one_thread()
    try:
        job = Job(Path(output))
        while (number := connection.recv()) is not None:
            job.run(number, lambda *counts: connection.send(Counted(*counts)))
            connection.send(Finished())
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)
    except EOFError:  # the parent is gone
        return
    except Exception as error:
        connection.send(Failed(_portable(error), traceback.format_exc()))


class Job:
    """A planned job as a worker sees it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.plan = Plan.read(output)
        check_versions(self.plan)
        ready = (pipeline for plan, pipeline in _prepared if plan == self.plan)
        self.pipeline = next(ready, None) or planned_pipeline(self.plan, planned_tokenizer(self.plan, output))

    def run(self, number: int, report: Report) -> None:
        """Run one task of the plan."""
        run_task(self.plan, self.plan.tasks[number], self.output, self.pipeline, report)


def _portable(error: Exception) -> Exception:
    """The error, or its text where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what this process has just written
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
