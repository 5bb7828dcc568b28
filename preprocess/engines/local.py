"""Running tasks on this machine: in this process, or in several that share nothing.

Each worker is a pool of one process. A worker that dies therefore costs an attempt of the task it was on, and of no
other: one pool of several processes would break as a whole and not say whose fault it was.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.engines import worker
from sft_shards.preprocess.progress import Progress
from sft_shards.preprocess.tasks.plan import Plan, Task
from sft_shards.preprocess.tasks.task import planned_pipeline, run_task
from sft_shards.preprocess.tasks.workdir import is_finished
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

ATTEMPTS = 3
"""How often a task is begun before the job gives up on it: workers die for reasons that pass."""
BYTES_PER_WORKER = 32 << 20
"""Input below which one more process takes longer to start than it saves."""


def default_workers() -> int:
    """The CPUs that this process may use; in a Slurm job those of one task."""
    cpus = len(os.sched_getaffinity(0))
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cpus, int(given)) if given.isdigit() and int(given) else cpus


def run_local(
    plan: Plan, output: Path, tokenizer: Tokenizer, workers: int | None = None, tasks: Sequence[Task] | None = None
) -> None:
    """Run every task (of `tasks`, or of the plan) that is not finished.

    Args:
        workers: processes; without, as many as there are CPUs and as the input is worth.

    Raises:
        DataError: a task failed, or lost its worker `ATTEMPTS` times.
    """
    chosen = plan.tasks if tasks is None else tasks
    todo = [task for task in chosen if not is_finished(output, task.number)]
    if not todo:
        return
    if workers is None:
        worth = 1 + sum(task.bytes for task in todo) // BYTES_PER_WORKER
        workers = min(default_workers(), worth)
    done = sum(task.bytes for task in chosen) - sum(task.bytes for task in todo)
    with Progress(tasks=len(chosen), done=len(chosen) - len(todo), size=done + _size(todo), passed=done) as progress:
        if min(workers, len(todo)) > 1:
            _Crew(output, min(workers, len(todo)), progress).run(todo)
            return
        pipeline = planned_pipeline(plan, tokenizer)
        for task in todo:
            run_task(plan, task, output, pipeline, progress.add)
            progress.task_done()


def _size(tasks: Sequence[Task]) -> int:
    return sum(task.bytes for task in tasks)


class _Slot:
    """One worker process, started when it gets its first task, and its pipe."""

    def __init__(self, output: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sft_shards.preprocess.engines.forkserver_preload"])
        os.environ[worker.JOB] = os.path.abspath(output)
        self.counts, self._theirs = context.Pipe(duplex=False)
        self.pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=worker.start, initargs=(str(output), self._theirs)
        )

    def submit(self, number: int) -> Future[None]:
        """Give the worker a task. A Ctrl-C while it starts is left to this process."""
        before = signal.getsignal(signal.SIGINT)
        with suppress(ValueError):  # not the main thread: there is no signal to hold back
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return self.pool.submit(worker.run, number)
        finally:
            self._theirs.close()
            with suppress(ValueError):
                signal.signal(signal.SIGINT, before)

    def drain(self, progress: Progress) -> None:
        """Take what the worker counted."""
        with suppress(EOFError, OSError):
            while self.counts.poll():
                progress.add(*self.counts.recv())

    def stop(self) -> None:
        """Let go of the worker."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.counts.close()


class _Crew:
    """Several workers with one list of tasks."""

    def __init__(self, output: Path, workers: int, progress: Progress) -> None:
        self.output = output
        self.progress = progress
        self.free = [_Slot(output) for _ in range(workers)]
        self.running: dict[Future[None], tuple[_Slot, Task]] = {}
        self.attempts: dict[int, int] = {}

    def run(self, todo: Sequence[Task]) -> None:
        """Run the tasks; on any error the workers are stopped, and the finished tasks stay finished."""
        children = set(multiprocessing.active_children())
        waiting = deque(todo)
        try:
            while waiting or self.running:
                while waiting and self.free:
                    slot, task = self.free.pop(), waiting.popleft()
                    self.running[slot.submit(task.number)] = slot, task
                finished, _ = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED)
                for slot, _ in self.running.values():
                    slot.drain(self.progress)
                for future in finished:
                    self._settle(future, waiting)
        finally:
            broken = bool(self.running)
            for slot in [*self.free, *(slot for slot, _ in self.running.values())]:
                slot.stop()
            if broken:
                for child in set(multiprocessing.active_children()) - children:
                    child.kill()
                    child.join()

    def _settle(self, future: Future[None], waiting: deque[Task]) -> None:
        slot, task = self.running.pop(future)
        try:
            future.result()
        except BrokenProcessPool:
            slot.stop()
            self.free.append(_Slot(self.output))
            if not is_finished(self.output, task.number):
                self.attempts[task.number] = self.attempts.get(task.number, 0) + 1
                if self.attempts[task.number] >= ATTEMPTS:
                    raise DataError(
                        f"{task.source.path}: task {task.number} lost its worker {ATTEMPTS} times; "
                        "out of memory? give fewer --workers"
                    ) from None
                waiting.append(task)
                return
        else:
            self.free.append(slot)
        self.progress.task_done()
