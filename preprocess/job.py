"""A whole job in three steps, and all of them in one: plan, tasks, finalize. Run again, it goes on where it stopped.

Job.run        all three, holding the output folder
Job.plan       the first step; any process may then take the others:
run_tasks      the second step, or a share of it
finalize_only  the third step
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.formats.shards.files import write_json
from sft_shards.formats.terminal import printable
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.engines.engine import Begin, RunTasks
from sft_shards.preprocess.engines.local import Local, run_local
from sft_shards.preprocess.inputs import STDIN
from sft_shards.preprocess.sources.stdin import spool
from sft_shards.preprocess.tasks import reuse
from sft_shards.preprocess.tasks.diff import joined
from sft_shards.preprocess.tasks.finalize import finalize
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.output import OutputState, check_apart, look, writing
from sft_shards.preprocess.tasks.plan import Plan, check_versions, make_plan, planned_sources, planned_tokenizer
from sft_shards.preprocess.tasks.prepare import check_fit, prepared
from sft_shards.preprocess.tasks.replacement import publish, recover, settle, start_over, working_folder
from sft_shards.preprocess.tasks.rerun import made_already
from sft_shards.preprocess.tasks.template_file import planned_config, template_text
from sft_shards.preprocess.tasks.workdir import PLAN, RUN, WORK, clear, is_finished, is_settled
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

Announce = Callable[[Plan, Tokenizer], None]
"""Tells the user what was planned."""


def _silent(_plan: Plan, _tokenizer: Tokenizer) -> None:
    pass


def _quiet(_line: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, and where and how it is to be run. Only `config` decides about the bytes that come out."""

    config: JobConfig
    output: Path
    overwrite: bool = False
    """Replace the shard directory at `output` when the new one is complete."""
    older: Path | None = None
    """A shard directory to take over from what would come out the same (`--extend`)."""
    workers: int | None = None
    """Processes that share the tasks on one machine; None for the engine's own default."""
    max_rejects: str | None = None
    """The most records that may be left out: a number, or a percentage such as "1%"; None for `losses.SHARE`."""
    announce: Announce = _silent
    """Is called with the plan before the first task runs."""
    say: Callable[[str], None] = _quiet
    """Is given lines on what is found and done."""
    status: Callable[[str], None] = _quiet
    """Is told what takes a moment now."""
    cache: bool = True
    """Whether what is found out about the tokenizer may be kept in the cache folder, and taken from there."""
    as_json: bool = False
    """Whether standard output is for JSON alone."""
    arguments: Sequence[str] = ()
    """Arguments that make `sft-preprocess plan` plan this job, without `--output`."""

    @property
    def folder(self) -> Path:
        """Where the plan and what tasks leave lies until the directory is complete: `output`, or beside it."""
        return working_folder(self.output, overwrite=self.overwrite)

    @property
    def is_new(self) -> bool:
        """Whether nothing of it is on disk yet: no complete directory, and no work of a job that was stopped."""
        state = look(self.folder)
        return not state.is_complete and not state.has_work

    def finished(self) -> Manifest | None:
        """Return the manifest where this very job finished the directory before, and it is not to be overwritten.

        A job that overwrites is finished as well where it was killed after its directory got its name.

        Raises:
            UsageError: the directory is complete, and another job made it.
            DataError: its manifest is damaged, or more records were left out than are allowed.
        """
        recover(self.output)
        state = look(self.output)
        if not state.is_complete or (self.overwrite and state is OutputState.COMPLETE):
            return None
        self.say(f"{self.output}: complete already; comparing configuration and inputs")
        try:
            manifest = made_already(self.config, self.output, max_rejects=self.max_rejects, cache=self.cache)
        except (UsageError, DataError):
            if self.overwrite:
                return None
            raise
        self.say(f"{self.output}: they are the same, nothing is left to do")
        return manifest

    def run(self, run_tasks: RunTasks, begin: Begin | None = None) -> Manifest:
        """Take all three steps: plan the job, run its tasks, publish the directory. Once finished, it does nothing.

        Args:
            begin: is called once there is a plan, before it is announced.

        Raises:
            UsageError: the call is wrong; nothing was written.
            DataError: something is wrong with the data or the machine; nothing was published.
        """
        if (manifest := self.finished()) is not None:
            return manifest
        with self._held() as folder:
            plan, tokenizer = self._write_plan(folder)
            write_json(folder / WORK / RUN, {}, scratch=folder / WORK)
            if begin is not None:
                begin(plan, tokenizer, folder)
            self.announce(plan, tokenizer)
            run_tasks(plan, tokenizer, folder)
            manifest = finalize(plan, folder, tokenizer, output=self.output, max_rejects=self.max_rejects)
            publish(folder, self.output)
            return manifest

    def plan(self, *, patience: float = 0.0) -> Plan:
        """Take the first step: write the plan, or find the same one there.

        Args:
            patience: seconds to wait for another process that plans here.

        Raises:
            UsageError: the call is wrong, or another plan is there.
            DataError: an input is damaged, or the output cannot be written.
        """
        with self._held(patience) as folder:
            plan, tokenizer = self._write_plan(folder)
            self.announce(plan, tokenizer)
            return plan

    def rehearse(self) -> Plan:
        """Make the plan and announce it, without writing anything (`--dry-run`).

        Raises:
            UsageError: the call is wrong.
            DataError: an input is damaged.
        """
        self._check_apart()
        if self.overwrite or not look(self.output).is_complete:
            check_fit(self.output, overwrite=self.overwrite)
        with tempfile.TemporaryDirectory() as scratch:
            plan, tokenizer = self._make_plan(Path(scratch), anew=True)
            self.announce(plan, tokenizer)
            return plan

    @contextmanager
    def _held(self, patience: float = 0.0) -> Iterator[Path]:
        self._check_apart()
        with prepared(self.output, overwrite=self.overwrite, patience=patience) as folder:
            yield folder

    def _check_apart(self) -> None:
        named = (*self.config.inputs, self.config.tokenizer, self.config.template)
        check_apart(self.output, [name for name in (*named, self.older) if name is not None])

    def _make_plan(self, scratch: Path, *, anew: bool) -> tuple[Plan, Tokenizer]:
        """Look at the inputs and load the tokenizer.

        Args:
            scratch: where standard input is put.
            anew: whether other standard input than was put there may take its place.
        """
        sources = planned_sources(self.config, lambda: spool(scratch, replace=anew))
        check_apart(self.output, [source.file for source in sources if source.path != STDIN])
        for source in sources:
            unread = f"; keys of messages that are not read: {joined(source.unread, 8)}" if source.unread else ""
            self.say(printable(f"{source.path}: {source.format} ({source.kind}){unread}"))
        self.status(f"loading the tokenizer {self.config.tokenizer}")
        tokenizer = Tokenizer.configured(self.config, cache=self.cache)
        template = template_text(self.config, self.folder)
        config = replace(planned_config(self.config, template), revision=tokenizer.revision)
        return make_plan(config, tokenizer, sources, template), tokenizer

    def _write_plan(self, folder: Path) -> tuple[Plan, Tokenizer]:
        new = not (folder / WORK / PLAN).is_file()
        settled = not new and is_settled(folder)
        try:
            plan, tokenizer = self._make_plan(folder / WORK, anew=self.overwrite or settled)
            if (self.overwrite or settled) and not plan.is_written(folder):
                if settled:
                    self.say(f"{self.output}: starting over, since the job before came to nothing")
                start_over(folder)
            plan.write(folder, tokenizer)
            if self.older is not None:
                reuse.write_candidates(plan, folder, self.older)
        except BaseException:
            if new:
                clear(folder)
            raise
        return plan, tokenizer


def run(
    config: JobConfig,
    output: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    max_rejects: str | None = None,
) -> Manifest:
    """Run a job on this machine, from raw files to a complete shard directory. Raises what `Job.run` raises."""
    job = Job(config=config, output=output, workers=workers, overwrite=overwrite, max_rejects=max_rejects)
    return Local().run(job)


def await_tasks(output: Path, seconds: float) -> None:
    """Wait until all tasks of the plan at `output` are finished, or the time is up."""
    until = time.monotonic() + seconds
    pause = 0.1
    while time.monotonic() < until and not (state := look(folder := working_folder(output))).is_complete:
        if state is OutputState.PLANNED:
            with suppress(UsageError):  # published between the two looks
                if all(is_finished(folder, task.number) for task in Plan.read(folder).tasks):
                    return
        time.sleep(pause)
        pause = min(pause * 2, 10.0)


def run_tasks(output: Path, choose: Callable[[Plan], list[int]], *, workers: int | None = None) -> tuple[int, int]:
    """Take the second step, or a share of it: run tasks of the plan at `output` that are not finished.

    Args:
        choose: gives the numbers of the tasks.

    Returns:
        How many tasks were chosen, and how many the plan has; 0 and 0 where the directory is complete already.

    Raises:
        UsageError: there is no plan, or no such task.
        DataError: a task failed.
    """
    recover(output)
    folder = working_folder(output)
    if look(folder).is_complete:
        return 0, 0
    Plan.read(folder)
    with writing(output), job_lock(folder, shared=True, becomes=output):
        plan = Plan.read(folder)
        check_versions(plan)
        tasks = [plan.tasks[number] for number in choose(plan)]
        run_local(plan, folder, planned_tokenizer(plan, folder), workers, tasks)
        return len(tasks), len(plan.tasks)


def finalize_only(output: Path, *, max_rejects: str | None = None, patience: float = 30.0) -> Manifest:
    """Take the last step: publish the directory whose tasks are all finished. Again, it changes nothing.

    Args:
        patience: seconds to wait for tasks that are just ending.

    Raises:
        UsageError: there is no plan.
        DataError: tasks are missing, or the directory cannot be published.
    """
    recover(output)
    folder = working_folder(output)
    state = look(folder)
    if state is OutputState.COMPLETE:
        return Manifest.read(folder)
    if not state.has_work:
        Plan.read(folder)  # raises: there is none
    with writing(output), job_lock(folder, patience=patience, becomes=output):
        if folder == output and look(output).is_complete:  # another process was killed before its end, or ends now
            manifest = Manifest.read(output)
            settle(output)
            return manifest
        plan = Plan.read(folder)
        manifest = finalize(plan, folder, planned_tokenizer(plan, folder), output=output, max_rejects=max_rejects)
        publish(folder, output)
        return manifest
