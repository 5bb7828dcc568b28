"""Several worker processes with one list of tasks, which they share nothing but.

The command forks its workers from itself, once it has loaded the job: they begin at once and share its memory. Another
program may have threads, whose locks a fork would copy; there, workers are forked from a server that loads the job.

A worker that dies costs one attempt of the task that it was on, and of no other; the task is given to a new worker.
When a task has cost `ATTEMPTS` workers, the job ends with what the last of them wrote to standard error.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.engines import worker
from sft_shards.preprocess.engines.worker_log import WorkerLogs, log_folder
from sft_shards.preprocess.progress import Progress
from sft_shards.preprocess.runtime import can_fork
from sft_shards.preprocess.tasks.plan import Task
from sft_shards.preprocess.tasks.workdir import is_finished

ATTEMPTS = 3
"""How often a task is begun before the job gives up on it: workers die for reasons that pass."""
POLL = 0.2
"""Seconds after which standard error of the workers is looked at, if no message came."""


class _RemoteTraceback(Exception):  # noqa: N818 - shown as the cause of an error, never raised
    """Where an error was raised in a worker."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def start_server(output: Path) -> None:
    """Start the process that workers are forked from. It loads the planned job while this process goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sft_shards.preprocess.engines.forkserver_preload"])
    os.environ[worker.JOB] = os.path.abspath(output)
    log_folder()
    with _interrupts_ignored():
        forkserver.ensure_running()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C is for this process, not for one that starts: what is started here begins with it ignored."""
    before = signal.getsignal(signal.SIGINT)
    with suppress(ValueError):  # in another thread than the main one, signals are not ours to hold back
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, before)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a process that starts from importing the program that calls this package, whose calls would run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    """One worker process and our end of its connection."""

    def __init__(self, output: Path) -> None:
        forks = can_fork()
        if not forks:
            start_server(output)
        context: Any = multiprocessing.get_context("fork" if forks else "forkserver")
        self.connection, theirs = multiprocessing.Pipe()
        self.process: BaseProcess = context.Process(target=worker.main, args=(str(output), theirs), daemon=True)
        try:
            with _interrupts_ignored(), _main_hidden(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: see `can_fork`
                self.process.start()
        finally:
            theirs.close()
        self.task: Task | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process.pid is not None, "started when it was made"
        return self.process.pid

    def dismiss(self) -> None:
        """Let an idle worker end."""
        with suppress(OSError):
            self.connection.send(None)
        self.connection.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Crew:
    """Runs tasks in several processes.

    Args:
        output: folder of the planned job.
        size: number of workers.
    """

    def __init__(self, output: Path, size: int, progress: Progress) -> None:
        self._output = output
        self._size = size
        self._progress = progress
        self._logs = WorkerLogs()
        self._workers: list[_Worker] = []
        self._attempts: dict[int, int] = {}

    def run(self, tasks: Sequence[Task]) -> None:
        """Run the tasks. On any error all workers are killed; tasks that are finished stay finished.

        Raises:
            DataError: a task failed, or lost its worker `ATTEMPTS` times.
        """
        waiting = deque(tasks)
        try:
            while waiting or any(one.task for one in self._workers):
                self._hand_out(waiting)
                busy = {one.connection: one for one in self._workers if one.task}
                ready = wait(list(busy), timeout=POLL)
                for one in busy.values():
                    self._logs.forward(one.pid)
                for connection in ready:
                    self._receive(busy[connection], waiting)  # type: ignore[index]
            while self._workers:
                self._workers.pop().dismiss()
        finally:
            for one in self._workers:
                one.kill()
                self._logs.forward(one.pid)
            self._logs.close()

    def _hand_out(self, waiting: deque[Task]) -> None:
        idle = [one for one in self._workers if not one.task]
        while waiting and (idle or len(self._workers) < self._size):
            if idle:
                one = idle.pop()
                self._logs.begin(one.pid)
            else:  # what it writes as it starts belongs to its first task: it may be dead by now
                one = _Worker(self._output)
                self._workers.append(one)
            one.task = waiting.popleft()
            with suppress(OSError):  # it is dead, and will be found dead
                one.connection.send(one.task.number)

    def _receive(self, one: _Worker, waiting: deque[Task]) -> None:
        """Take all messages of a worker, of which there is at least one, or the end of its connection."""
        while one.task and one.connection.poll():
            try:
                message: worker.Message = one.connection.recv()
            except (EOFError, OSError):
                self._bury(one, waiting)
                return
            if isinstance(message, worker.Counted):
                self._progress.add(message.records, message.tokens, message.rejects, message.size)
            elif isinstance(message, worker.Finished):
                one.task = None
                self._progress.task_done()
            else:
                raise message.error from _RemoteTraceback(message.trace)

    def _bury(self, one: _Worker, waiting: deque[Task]) -> None:
        """Give the task of a dead worker to another one, or end the job."""
        task = one.task
        assert task is not None, "only busy workers are listened to"
        one.process.join()
        one.connection.close()
        self._logs.forward(one.pid)
        self._workers.remove(one)
        if is_finished(self._output, task.number):
            self._progress.task_done()
            return
        self._attempts[task.number] = self._attempts.get(task.number, 0) + 1
        if self._attempts[task.number] >= ATTEMPTS:
            why = describe_death(one.process.exitcode, self._logs.last_line(one.pid))
            raise DataError(f"{task.source.path}: task {task.number} lost its worker {ATTEMPTS} times{why}")
        waiting.append(task)


def describe_death(exit_code: int | None, last_line: str) -> str:
    """Say how a worker ended, to stand behind "lost its worker". A cause is guessed only where it left no word.

    >>> describe_death(1, "ModuleNotFoundError: No module named 'x'")
    " (exit status 1: ModuleNotFoundError: No module named 'x'); run with --workers 1 to see more"
    >>> describe_death(-9, "")
    '; out of memory? give fewer --workers'
    """
    if exit_code == -signal.SIGKILL and not last_line:
        return "; out of memory? give fewer --workers"
    if exit_code is None or exit_code >= 0:
        how = f"exit status {exit_code}"
    else:
        how = f"killed by {signal.Signals(-exit_code).name}"
    said = last_line or "it wrote nothing to standard error"
    return f" ({how}: {said}); run with --workers 1 to see more"
