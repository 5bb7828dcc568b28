"""What an engine is, what it is given, and which engines there are.

An engine is one file with one class, and one entry in `ENGINES`. The class is a frozen dataclass whose fields are the
values of its own command-line options, so that what a user can say to an engine stands beside what the engine does.
The options of all engines are options of `sft-preprocess run`; one that the chosen engine does not declare is refused.

These modules are imported whenever the command starts, so they import what a job needs where they need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import click

from sft_shards.preprocess.options import Option, Whole

if TYPE_CHECKING:
    from sft_shards.formats.shards import Manifest
    from sft_shards.preprocess.tasks.plan import Plan
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

RunTasks: TypeAlias = "Callable[[Plan, Tokenizer, Path], None]"
"""Runs every task of a plan that is not finished in the folder that it lies in, and returns when all are; a `DataError`
where one failed."""

Begin: TypeAlias = "Callable[[Plan, Tokenizer, Path], None]"
"""Begins what takes long before the first task and needs nobody to wait for it; returns at once."""

ENGINES = {
    "local": "sft_shards.preprocess.engines.local:Local",
    "slurm": "sft_shards.preprocess.engines.slurm:Slurm",
    "ray": "sft_shards.preprocess.engines.ray:Ray",
    "kubernetes": "sft_shards.preprocess.engines.kubernetes:Kubernetes",
}
"""Where the class of each engine is, by the name that `--engine` takes."""


class EngineJob(Protocol):
    """The job that an engine runs, as `preprocess.job.Job` gives it."""

    @property
    def output(self) -> Path:
        """The shard directory to write."""

    @property
    def folder(self) -> Path:
        """Where the plan and what tasks leave lies until the directory is complete: `output`, or beside it."""

    @property
    def workers(self) -> int | None:
        """Processes that share the tasks on one machine; None for the engine's own default."""

    @property
    def max_rejects(self) -> str | None:
        """The value of `--max-rejects`."""

    @property
    def as_json(self) -> bool:
        """Whether standard output is for JSON alone."""

    @property
    def arguments(self) -> Sequence[str]:
        """Arguments that make `sft-preprocess plan` plan this job, without `--output`."""

    def finished(self) -> Manifest | None:
        """Return the manifest where this very job finished the directory before."""

    def plan(self) -> Plan:
        """Write the plan, and let go of the output folder so that other processes can run its tasks."""

    def run(self, run_tasks: RunTasks, begin: Begin | None = None) -> Manifest:
        """Do all of it, holding the output folder: plan, run the tasks, publish. Once finished, it does nothing.

        Args:
            begin: is called once there is a plan, before it is announced.
        """


class Engine(Protocol):
    """Runs jobs on one kind of machine. The fields of the class are its options."""

    options: ClassVar[Sequence[click.Option]]
    """Options of `sft-preprocess run` that only this engine takes, or that it shares with a few others."""

    def run(self, job: EngineJob) -> Manifest | None:
        """Run a job, and return the manifest of its directory; None where others go on with it after this process."""

    def script(self, job: EngineJob) -> str | None:
        """Give what would be submitted, for `--dry-run`; None for an engine that submits nothing."""


ARRAY = Option(["--array"], type=Whole(1), default=8, help="Number of array elements, or of pods.")
"""Shared by engines that hand tasks to an array of jobs."""


def engine_class(name: str) -> Any:
    """Import the class of an engine; `name` is a key of `ENGINES`."""
    module, _, attribute = ENGINES[name].partition(":")
    return getattr(import_module(module), attribute)


def engine_options() -> dict[str, tuple[click.Option, tuple[str, ...]]]:
    """List the options of all engines by parameter name, each with the names of the engines that take it."""
    found: dict[str, tuple[click.Option, tuple[str, ...]]] = {}
    for name in ENGINES:
        for option in engine_class(name).options:
            _, others = found.get(str(option.name), (option, ()))
            found[str(option.name)] = option, (*others, name)
    return found


def make_engine(name: str, values: Mapping[str, Any]) -> Engine:
    """Make an engine from the values of its options; other values are not looked at."""
    chosen = engine_class(name)
    engine: Engine = chosen(**{option.name: values[option.name] for option in chosen.options})
    return engine
