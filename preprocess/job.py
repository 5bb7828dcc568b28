"""A whole job in three steps, and all of them in one: plan, tasks, finalize. Run again, it goes on where it stopped."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.formats.shards.manifest import NAME
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.engines.local import run_local
from sft_shards.preprocess.sources.stdin import spool
from sft_shards.preprocess.tasks import plan as planning
from sft_shards.preprocess.tasks import reuse
from sft_shards.preprocess.tasks.finalize import finalize
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.plan import Plan, make_plan, planned_tokenizer
from sft_shards.preprocess.tasks.workdir import LOCK, WORK, clear, is_finished
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

Runner = Callable[[Plan, Path, Tokenizer], None]
"""Runs every task that is not finished."""
Announce = Callable[[Plan, Tokenizer], None]
"""Says what was planned."""


def prepare_output(output: Path, *, overwrite: bool) -> None:
    """Make the output folder, or see that the one there is ours to go on in.

    Raises:
        UsageError: it holds a complete shard directory, or something that is none.
        DataError: it cannot be written, or another job works there.
    """
    complete, unfinished = (output / NAME).exists(), (output / WORK).exists()
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; choose another --output")
    with _writing(output):
        if overwrite and (complete or unfinished):
            if unfinished:
                with job_lock(output):
                    shutil.rmtree(output)
            else:
                shutil.rmtree(output)
        if complete and not overwrite:
            raise UsageError(
                f"{output}: already holds a complete shard directory; choose another --output, or give --overwrite"
            )
        if output.is_dir() and not unfinished and any(output.iterdir()):
            raise UsageError(f"{output}: exists and is not a shard directory; choose another --output")
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(13, "Permission denied")


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{output}: cannot be written ({error.strerror or error}); free the disk, mend its rights, or choose "
            "another --output, then run again"
        ) from None


def check_output(output: Path, config: JobConfig) -> None:
    """Refuse an output that lies inside of an input folder, where the next run would read it."""
    for given in config.inputs:
        if Path(given).is_dir() and output.resolve().is_relative_to(Path(given).resolve()):
            raise UsageError(f"{output}: lies inside of the input folder {given}; choose another --output")


def _plan_and_write(config: JobConfig, output: Path, older: Path | None) -> tuple[Plan, Tokenizer]:
    """Make the plan and write it; whoever calls holds the lock."""
    new = not (output / WORK / planning.NAME).exists()
    try:
        tokenizer = Tokenizer(config.tokenizer, trust_remote_code=config.trust_remote_code)
        plan = make_plan(config, tokenizer, lambda: spool(output / WORK))
        plan.write(output, tokenizer)
        if older is not None:
            reuse.write_candidates(plan, output, older)
    except BaseException:
        if new:
            clear(output)
        raise
    return plan, tokenizer


@contextmanager
def _prepared(config: JobConfig, output: Path, *, overwrite: bool, patience: float = 0.0) -> Iterator[None]:
    """Hold the output folder; what a call that went wrong made is removed again."""
    check_output(output, config)
    existed = output.exists()
    prepare_output(output, overwrite=overwrite)
    try:
        with _writing(output), job_lock(output, patience=patience):
            yield
    finally:
        with suppress(OSError):
            if [entry.name for entry in (output / WORK).iterdir()] == [LOCK]:
                shutil.rmtree(output / WORK)
            if not existed:
                output.rmdir()  # only an empty folder can be removed so


def run(
    config: JobConfig,
    output: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    max_rejects: str | None = None,
    older: Path | None = None,
    runner: Runner | None = None,
    announce: Announce | None = None,
) -> tuple[Plan, Manifest]:
    """Run a job from raw files to a complete shard directory.

    Args:
        older: a shard directory to take over from what would come out the same (`--extend`).
        runner: what runs the tasks; this machine without.
        announce: is told of the plan before the first task runs.

    Raises:
        UsageError: the call is wrong; nothing was written.
        DataError: something is wrong with the data or the machine; nothing was published.
    """
    with _prepared(config, output, overwrite=overwrite):
        plan, tokenizer = _plan_and_write(config, output, older)
        if announce is not None:
            announce(plan, tokenizer)
        if runner is None:
            run_local(plan, output, tokenizer, workers)
        else:
            runner(plan, output, tokenizer)
        return plan, finalize(plan, output, tokenizer, max_rejects=max_rejects)


def plan_only(
    config: JobConfig,
    output: Path,
    *,
    overwrite: bool = False,
    older: Path | None = None,
    patience: float = 0.0,
    announce: Announce | None = None,
) -> Plan:
    """Take the first step: write the plan, or find the same one there.

    Args:
        patience: seconds to wait for another process that plans here.

    Raises:
        UsageError: the call is wrong, or another plan is there.
        DataError: an input is damaged, or the output cannot be written.
    """
    with _prepared(config, output, overwrite=overwrite, patience=patience):
        plan, tokenizer = _plan_and_write(config, output, older)
        if announce is not None:
            announce(plan, tokenizer)
        return plan


def await_tasks(output: Path, seconds: float) -> None:
    """Wait until all tasks of the plan at `output` are finished, or the time is up."""
    until = time.monotonic() + seconds
    pause = 0.1
    while time.monotonic() < until and not (output / NAME).exists():
        if (output / WORK / planning.NAME).exists():
            with suppress(UsageError):  # published in this very moment
                if all(is_finished(output, task.number) for task in Plan.read(output).tasks):
                    return
        time.sleep(pause)
        pause = min(pause * 2, 10.0)


def run_tasks(output: Path, choose: Callable[[Plan], list[int]], *, workers: int | None = None) -> tuple[int, int]:
    """Take the second step, or a part of it: run tasks of the plan at `output` that are not finished.

    Args:
        choose: gives the numbers of the tasks.

    Returns:
        How many tasks were chosen, and how many the plan has; 0 and 0 where the directory is complete already.

    Raises:
        UsageError: there is no plan, or no such task.
        DataError: a task failed.
    """
    if (output / NAME).exists():
        return 0, 0
    Plan.read(output)
    with _writing(output), job_lock(output, shared=True):
        plan = Plan.read(output)
        planning.check_versions(plan)
        numbers = choose(plan)
        tasks = [plan.tasks[number] for number in numbers]
        run_local(plan, output, planned_tokenizer(plan, output), workers, tasks)
        return len(tasks), len(plan.tasks)


def finalize_only(output: Path, *, max_rejects: str | None = None, patience: float = 30.0) -> Manifest:
    """Take the last step: publish the directory whose tasks are all finished; again, it changes nothing.

    Args:
        patience: seconds to wait for tasks that are just ending.

    Raises:
        UsageError: there is no plan.
        DataError: tasks are missing, or the directory cannot be published.
    """
    if not (output / NAME).exists() and not (output / WORK).exists():
        Plan.read(output)
    if (output / NAME).exists() and not (output / WORK).exists():
        return Manifest.read(output)
    with _writing(output), job_lock(output, patience=patience):
        if (output / NAME).exists():  # by another process, just now, or by one that was stopped at its very end
            clear(output)
            return Manifest.read(output)
        plan = Plan.read(output)
        return finalize(plan, output, planned_tokenizer(plan, output), max_rejects=max_rejects)
