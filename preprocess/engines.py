"""Running the tasks of a plan on this machine: in this process, or in several that share nothing."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from formats.errors import DataError
from preprocess.pipeline import Pipeline
from preprocess.plan import Plan, Task
from preprocess.progress import Progress
from preprocess.task import read_receipt, run_task
from preprocess.tokenizer import Tokenizer

ATTEMPTS = 3
"""How often a task is begun before the job gives up on it: workers die for reasons that pass."""

BYTES_PER_WORKER = 4 << 20
"""Input below which one more process takes longer to start than it saves."""

_worker: dict[str, Any] = {}


def default_workers() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def run_local(plan: Plan, output: Path, tokenizer: Tokenizer, workers: int) -> None:
    """Run every task that is not finished.

    Raises:
        DataError: a task failed, or lost its worker `ATTEMPTS` times.
    """
    todo = [task for task in plan.tasks if read_receipt(output, task.number) is None]
    with Progress(len(plan.tasks)) as progress:
        progress.done = len(plan.tasks) - len(todo)
        worth = 1 + sum(task.source.bytes for task in todo) // BYTES_PER_WORKER
        workers = min(workers, len(todo), worth)
        if workers <= 1:
            pipeline = Pipeline(plan.config, plan.template, tokenizer) if todo else None
            for task in todo:
                assert pipeline is not None
                run_task(plan, task, output, pipeline, progress.add)
                progress.task_done()
        else:
            _run_processes(plan, todo, output, workers, progress)


def _run_processes(plan: Plan, todo: list[Task], output: Path, workers: int, progress: Progress) -> None:
    context = multiprocessing.get_context("spawn")
    counts: Any = context.Queue()
    attempts = dict.fromkeys((task.number for task in todo), 0)
    reader = threading.Thread(target=_count, args=(counts, progress), daemon=True)
    reader.start()
    try:
        while todo:
            pool = ProcessPoolExecutor(
                workers, mp_context=context, initializer=_start_worker, initargs=(str(output), counts)
            )
            try:
                running: dict[Future[None], Task] = {pool.submit(_run_in_worker, task.number): task for task in todo}
                while running:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        progress.task_done()
                        del running[future]
                todo = []
            except BrokenProcessPool:
                todo = [task for task in todo if read_receipt(output, task.number) is None]
                for task in todo:
                    attempts[task.number] += 1
                    if attempts[task.number] >= ATTEMPTS:
                        raise DataError(
                            f"{task.source.path}: task {task.number} lost its worker {ATTEMPTS} times; "
                            "out of memory? give fewer --workers"
                        ) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        counts.put(None)
        reader.join(timeout=5)


def _count(counts: Any, progress: Progress) -> None:
    while (item := counts.get()) is not None:
        progress.add(*item)


def _start_worker(output: str, counts: Any) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    plan = Plan.read(Path(output))
    tokenizer = Tokenizer(plan.config.tokenizer, trust_remote_code=plan.config.trust_remote_code)
    pipeline = Pipeline(plan.config, plan.template, tokenizer)
    _worker.update(plan=plan, output=Path(output), pipeline=pipeline, counts=counts)


def _run_in_worker(number: int) -> None:
    plan: Plan = _worker["plan"]
    counts = _worker["counts"]

    def add(*since: int) -> None:
        counts.put(since)

    run_task(plan, plan.tasks[number], _worker["output"], _worker["pipeline"], add)
