"""`sft-preprocess`: the commands that make shard directories, and how every command ends.

`run` is `plan`, `task` and `finalize` in one; a scheduler calls the three by themselves. The commands on finished
directories are in `directories.cli`. What a job needs is imported when a job begins, so that `--help` is quick.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.terminal import coloured, say, status, width_of
from sft_shards.preprocess import runtime
from sft_shards.preprocess.directories.cli import COMMANDS as ON_DIRECTORIES
from sft_shards.preprocess.engines.engine import ENGINES, engine_class, engine_options, make_engine
from sft_shards.preprocess.inputs import check_inputs
from sft_shards.preprocess.options import (
    DIRECTORY,
    SECONDS,
    Limit,
    Settings,
    Whole,
    job_options,
    option,
    resolve,
)
from sft_shards.preprocess.trials.cli import COMMANDS as ON_INPUTS

if TYPE_CHECKING:
    from sft_shards.formats.shards import Manifest
    from sft_shards.preprocess.job import Job
    from sft_shards.preprocess.tasks.plan import Plan
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

ELSEWHERE = ("kubernetes",)
"""Engines that plan a job on another machine, whose files are not those of this one."""
OUTPUT = option("--output", type=DIRECTORY, required=True, help="Shard directory that was planned.")
LIMIT = option(
    "--max-rejects",
    type=Limit(),
    default_words="half of a source, where that is over 100 records; overlong ones and duplicates do not count",
    help="Fail if more records are left out; 100% allows any number.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
WORKERS = option(
    "--workers",
    type=Whole(1),
    default_words="one per CPU, fewer for small inputs",
    help="Processes on this machine, or of an array element or pod.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sft-shards", message="%(package)s %(version)s")
def cli() -> None:
    """Tokenize fine-tuning data once, into Megatron shards that carry their loss mask."""


@cli.command()
@job_options
@WORKERS
@LIMIT
@option("--engine", type=click.Choice(list(ENGINES)), default="local", help="What runs the tasks.")
@click.option("--dry-run", is_flag=True, help="Print the plan, or what would be submitted, and write nothing.")
@JSON
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Turn INPUT into a shard directory: plan, tasks and finalize in one.

    INPUT is a file, glob, folder, OWNER/NAME[:SPLIT] on the Hub, or - for standard input. Stopped anywhere, the same
    command goes on where it was; on the directory that it finished, it does nothing and succeeds.
    """
    began = time.monotonic()
    settings = resolve(context, options)
    engine = make_engine(settings.values["engine"], settings.values)
    _refuse_options_of_other_engines(settings)
    job = _job(context, settings)
    as_json = settings.values["as_json"]
    if settings.values["dry_run"]:
        _dry_run(job, engine.script(job), as_json)
        return
    new = job.is_new
    manifest = engine.run(job)
    if manifest is not None:
        _report(job.output, manifest, as_json, time.monotonic() - began if new else None)


def _add_engine_options() -> None:
    """Give `run` the options of every engine, their help naming the engines that take them."""
    for declared, engines in engine_options().values():
        added = copy.copy(declared)
        added.help = f"{', '.join(engines)}: {declared.help}"
        run.params.append(added)


_add_engine_options()


def _refuse_options_of_other_engines(settings: Settings) -> None:
    chosen = settings.values["engine"]
    taken = {declared.name for declared in engine_class(chosen).options}
    for name, (declared, engines) in engine_options().items():
        if name in settings.given and name not in taken:
            raise UsageError(
                f"{declared.opts[0]}: an option of --engine {' and '.join(engines)}, and this is --engine {chosen}; "
                "leave it out, or choose that engine"
            )


def _job(context: click.Context, settings: Settings) -> Job:
    """Put together what an engine needs to know, after a look at what can be seen without importing much."""
    if settings.values.get("engine") not in ELSEWHERE:
        check_inputs(settings.values["inputs"])
    status("looking at the inputs")
    from sft_shards.preprocess.job import Job

    config = settings.config()
    if config.trust_remote_code:
        runtime.keep_torch()
    return Job(
        config=config,
        output=settings.output,
        overwrite=settings.values["overwrite"],
        older=settings.values["extend"],
        cache=not settings.values["no_cache"],
        workers=settings.values.get("workers"),
        max_rejects=settings.values.get("max_rejects"),
        announce=_announce,
        as_json=settings.values["as_json"],
        say=lambda line: say(line, err=True),
        status=status,
        arguments=settings.plan_arguments(context),
    )


def _dry_run(job: Job, script: str | None, as_json: bool) -> None:
    if script is not None:
        click.echo(script, nl=not script.endswith("\n"))
        return
    plan = job.rehearse()
    _show_plan(plan, as_json)
    if not as_json:
        say(f"nothing was written; without --dry-run, {job.output} would be")


def _announce(plan: Plan, tokenizer: Tokenizer) -> None:
    from sft_shards.preprocess.preview import announcement

    colour = coloured(sys.stderr)
    for line in announcement(plan, tokenizer, colour=colour):
        click.echo(line, err=True, color=colour)


@cli.command()
@job_options
@option("--patience", type=SECONDS, default=0.0, default_words="0", help="Seconds to wait for another planner.")
@JSON
@click.pass_context
def plan(context: click.Context, /, **options: Any) -> None:
    """First step: cut INPUT into a fixed list of tasks, below --output.

    What a task makes is fixed here, whatever runs it. Planned again in the same way, nothing changes, and where the
    directory is finished nothing is left to plan; in another way, it is refused with what differs.
    """
    settings = resolve(context, options)
    job = _job(context, settings)
    as_json = settings.values["as_json"]
    if job.finished() is not None:
        if as_json:
            click.echo(json.dumps({"tasks": 0, "sources": 0, "bytes": 0}))
        return
    _show_plan(job.plan(patience=settings.values["patience"]), as_json)
    if not as_json:
        say(f"next, in as many processes as you like: sft-preprocess task --output {job.output}")
        say(f"then, once: sft-preprocess finalize --output {job.output}")


def _show_plan(plan: Plan, as_json: bool) -> None:
    size = sum(source.bytes for source in plan.sources)
    if as_json:
        click.echo(json.dumps({"tasks": len(plan.tasks), "sources": len(plan.sources), "bytes": size}))
    else:
        say(f"{len(plan.tasks)} tasks over {len(plan.sources)} file(s), {size:,} bytes, template {plan.template}")


@cli.command()
@OUTPUT
@click.option("--index", "indexes", type=int, multiple=True, metavar="I", help="Run this task; may be repeated.")
@option("--rank", type=int, default_words="the scheduler's", help="Number R of this process, from 0.")
@option("--world-size", type=int, default_words="the scheduler's", help="Number W of processes that share the tasks.")
@WORKERS
@JSON
def task(
    output: Path, indexes: tuple[int, ...], rank: int | None, world_size: int | None, workers: int | None, as_json: bool
) -> None:
    """Second step: run tasks of a planned job; those that are finished are passed over.

    Without --index this process runs its share: every W-th task from the R-th on. R and W are --rank and --world-size,
    or what the scheduler says: SLURM_ARRAY_TASK_ID and SLURM_PROCID in a Slurm job, JOB_COMPLETION_INDEX with
    JOB_COMPLETIONS, RANK with WORLD_SIZE. Where none of these is set, it runs all tasks.
    """
    if indexes and (rank is not None or world_size is not None):
        raise UsageError("--index names tasks, --rank a share of them; give one")
    from sft_shards.preprocess.engines.task_share import find_share
    from sft_shards.preprocess.job import run_tasks

    share = None if indexes else find_share(rank, world_size, os.environ)

    def choose(plan: Plan) -> list[int]:
        if share is not None:
            return list(share.of(len(plan.tasks)))
        for number in indexes:
            if not 0 <= number < len(plan.tasks):
                raise UsageError(f"--index {number}: the plan has tasks 0 to {len(plan.tasks) - 1}")
        return sorted(set(indexes))

    done, tasks = run_tasks(output, choose, workers=workers)
    if as_json:
        click.echo(json.dumps({"done": done, "tasks": tasks}))
    elif not tasks:
        say(f"{output}: complete already")
    else:
        say(f"{done} of {tasks} tasks are finished by this process; then: sft-preprocess finalize --output {output}")


@cli.command()
@OUTPUT
@LIMIT
@option(
    "--wait",
    type=SECONDS,
    default=0.0,
    metavar="SECONDS",
    default_words="none",
    help="Wait for tasks that are missing.",
)
@JSON
def finalize(output: Path, max_rejects: str | None, wait: float, as_json: bool) -> None:
    """Last step: check what the tasks left, number the shards, write manifest.json.

    If tasks are missing it publishes nothing, lists them with the command that makes them, and exits with 1.
    """
    from sft_shards.preprocess.job import await_tasks, finalize_only

    await_tasks(output, wait)
    _report(output, finalize_only(output, max_rejects=max_rejects), as_json)


def _report(output: Path, manifest: Manifest, as_json: bool, seconds: float | None = None) -> None:
    """Print what a finished directory holds, what was lost, and what went wrong that is no fault of the records.

    Args:
        seconds: what the job took, where this call made all of it.
    """
    from sft_shards.preprocess.directories.summary import lines, summarize

    summary = summarize(output, manifest, seconds=seconds)
    if as_json:
        click.echo(json.dumps(summary.as_dict(), ensure_ascii=False))
    else:
        colour = coloured(sys.stdout)
        for line in lines(summary, colour=colour, width=width_of(sys.stdout)):
            click.echo(line, color=colour)
    if "internal_error" in manifest.counts.rejected:
        from sft_shards.preprocess.tasks.bugs import bug_reports

        for line in bug_reports(output):
            _say(line)


for command in (*ON_INPUTS, *ON_DIRECTORIES):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command; errors are one line on standard error, and the exit status says whose they are."""
    if runtime.is_command():
        runtime.without_torch()
    try:
        cli(standalone_mode=False)
    except (UsageError, DataError) as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if len(sys.argv) == 1:
            error.show()  # the help
        else:
            _say(f"{' '.join(error.format_message().split())} See --help.")
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; the same command goes on where it stopped")
        sys.exit(130)
    except MemoryError:
        _say("out of memory; free some, or lower --max-record-bytes, and give the same command again")
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(0)


def _say(message: str) -> None:
    say(f"sft-preprocess: {' '.join(message.splitlines())}", err=True)


if __name__ == "__main__":
    main()
