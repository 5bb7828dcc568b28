"""`sft-preprocess`: the commands that make shard directories, and how every command ends.

`run` is `plan`, `task` and `finalize` in one; a scheduler calls the three by themselves. The commands that look at
directories are in `cli_directories`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.sbatch import site_options
from sft_shards.preprocess import runtime
from sft_shards.preprocess.directories.cli import COMMANDS
from sft_shards.preprocess.options import DIRECTORY, check_limit_text, job_options, resolved

OUTPUT = click.option("--output", type=DIRECTORY, required=True, help="The shard directory that was planned.")
LIMIT = click.option("--max-rejects", metavar="N|F%", help="Fail if more records are left out; any number without.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
WORKERS = click.option("--workers", type=click.IntRange(1), help="Processes; as many as it is worth without.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sft-shards", message="%(package)s %(version)s")
def cli() -> None:
    """Tokenize fine-tuning data once, into Megatron shards that carry their loss mask."""


@cli.command()
@job_options
@WORKERS
@LIMIT
@click.option(
    "--engine", type=click.Choice(["local", "slurm", "ray", "kubernetes"]), default="local", show_default=True
)
@click.option("--array", type=click.IntRange(1), default=8, show_default=True, help="slurm, kubernetes: how many jobs.")
@click.option(
    "--slurm-option",
    multiple=True,
    callback=lambda _context, _parameter, values: site_options(values),
    metavar="KEY=VALUE",
    help="slurm: an option of sbatch, such as partition=cpu, account=lab, time=8:00:00.",
)
@click.option("--slurm-setup", default="", help="slurm: shell lines before the command, such as 'module load python'.")
@click.option("--dry-run", is_flag=True, help="slurm: print the batch script, and neither plan nor submit.")
@click.option("--follow", is_flag=True, help="slurm: wait for the end and show how far it is.")
@click.option("--ray-address", help="ray: a cluster that is there, such as auto or HOST:6379; started here without.")
@click.option("--image", default="sft-shards", help="kubernetes: the image of the pods.")
@click.option("--claim", default="data", help="kubernetes: the volume claim that holds inputs and output.")
@click.option("--mount", default="/data", help="kubernetes: where the pods see it.")
@JSON
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Turn INPUT into a shard directory: plan, tasks and finalize in one.

    INPUT is a file, glob, folder, OWNER/NAME[:SPLIT] on the Hub, or - for standard input. Stopped anywhere, the same
    command goes on where it was; on the directory that it finished, it does nothing and succeeds.
    """
    options = resolved(context, options)
    engine = {name: options.pop(name) for name in ENGINE_OPTIONS}
    output, as_json, overwrite = options.pop("output"), options.pop("as_json"), options.pop("overwrite")
    older, max_rejects = options.pop("extend"), options.pop("max_rejects")
    check_limit_text(max_rejects)
    if engine["engine"] == "kubernetes":
        _print_kubernetes(output, engine)
        return
    from sft_shards.preprocess.config import JobConfig
    from sft_shards.preprocess.job import plan_only
    from sft_shards.preprocess.job import run as run_job

    config = JobConfig(**options)
    if config.trust_remote_code:
        runtime.keep_torch()
    done = None if overwrite or engine["dry_run"] else _made_already(config, output, max_rejects)
    if done is not None:
        _report(output, done, as_json)
        return
    if engine["engine"] == "slurm":
        from sft_shards.preprocess.engines.slurm import Slurm, follow

        slurm = Slurm(
            array=engine["array"],
            workers=engine["workers"] or 1,
            options=engine["slurm_option"],
            setup=engine["slurm_setup"],
            max_rejects=max_rejects,
        )
        if engine["dry_run"]:
            click.echo(slurm.script(output), nl=False)
            return
        plan = plan_only(config, output, overwrite=overwrite, older=older, announce=_announce)
        jobs = slurm.submit(output)
        click.echo(
            f"submitted {jobs[0]} ({len(plan.tasks)} tasks, {engine['array']} elements), then {jobs[1]} to publish "
            f"{output}; logs in {output}/.work/slurm and {output}.finalize-{jobs[1]}.log",
            err=as_json or engine["follow"],
        )
        if not engine["follow"]:
            return
        follow(plan, output, jobs)
        from sft_shards.formats.shards import Manifest

        _report(output, Manifest.read(output), as_json)
        return
    runner = None
    if engine["engine"] == "ray":
        from sft_shards.preprocess.engines.ray import run_ray

        def runner(plan: Any, output: Path, tokenizer: Any) -> None:
            run_ray(plan, output, address=engine["ray_address"], workers=engine["workers"])

    _, manifest = run_job(
        config,
        output,
        workers=engine["workers"],
        overwrite=overwrite,
        max_rejects=max_rejects,
        older=older,
        runner=runner,
        announce=_announce,
    )
    _report(output, manifest, as_json)


def _made_already(config: Any, output: Path, max_rejects: str | None = None) -> Any:
    from sft_shards.formats.shards.manifest import NAME
    from sft_shards.preprocess.tasks.rerun import made_already

    if not (output / NAME).is_file():
        return None
    click.echo(f"{output}: complete already; comparing configuration and inputs", err=True)
    manifest = made_already(config, output, max_rejects=max_rejects)
    click.echo(f"{output}: they are the same, nothing is left to do", err=True)
    return manifest


def _announce(plan: Any, tokenizer: Any) -> None:
    from sft_shards.preprocess.preview import announcement

    for line in announcement(plan, tokenizer, colour=sys.stderr.isatty()):
        click.echo(line, err=True, color=sys.stderr.isatty())


ENGINE_OPTIONS = (
    "workers",
    "engine",
    "array",
    "slurm_option",
    "slurm_setup",
    "dry_run",
    "follow",
    "ray_address",
    "image",
    "claim",
    "mount",
)


def _print_kubernetes(output: Path, engine: dict[str, Any]) -> None:
    """Print the manifest; the pods plan with this very call, less what is about engines."""
    from sft_shards.preprocess.engines.kubernetes import Kubernetes

    dropped = {f"--{name.replace('_', '-')}" for name in (*ENGINE_OPTIONS, "output", "max_rejects")}
    flags = {"--dry-run", "--follow"}
    arguments: list[str] = []
    given = iter(sys.argv[sys.argv.index("run") + 1 :])
    for word in given:
        name, sign, _ = word.partition("=")
        if name not in dropped:
            arguments.append(word)
        elif not sign and name not in flags:
            next(given, None)
    job = Kubernetes(
        image=engine["image"],
        claim=engine["claim"],
        mount=engine["mount"],
        pods=engine["array"],
        workers=engine["workers"] or 1,
    )
    click.echo(job.manifest(output, arguments))


@cli.command()
@job_options
@click.option("--patience", type=float, default=0.0, help="Seconds to wait for another process that plans here.")
@JSON
@click.pass_context
def plan(context: click.Context, /, **options: Any) -> None:
    """First step: cut INPUT into a fixed list of tasks, below --output.

    What a task makes is fixed here, whatever runs it. Planned again in the same way, nothing changes, and where the
    directory is finished nothing is left to plan; in another way, it is refused with what differs.
    """
    options = resolved(context, options)
    output, as_json, overwrite = options.pop("output"), options.pop("as_json"), options.pop("overwrite")
    older, patience = options.pop("extend"), options.pop("patience")
    from sft_shards.preprocess.config import JobConfig
    from sft_shards.preprocess.job import plan_only

    config = JobConfig(**options)
    if not overwrite and _made_already(config, output) is not None:
        if as_json:
            click.echo(json.dumps({"tasks": 0, "sources": 0, "bytes": 0}))
        return
    made = plan_only(config, output, overwrite=overwrite, older=older, patience=patience)
    size = sum(source.bytes for source in made.sources)
    if as_json:
        click.echo(json.dumps({"tasks": len(made.tasks), "sources": len(made.sources), "bytes": size}))
        return
    click.echo(f"{len(made.tasks)} tasks over {len(made.sources)} file(s), {size:,} bytes, template {made.template}")
    click.echo(f"next, in as many processes as you like: sft-preprocess task --output {output}")
    click.echo(f"then, once: sft-preprocess finalize --output {output}")


@cli.command()
@OUTPUT
@click.option("--index", "indexes", type=int, multiple=True, metavar="I", help="Run this task; may be repeated.")
@click.option("--rank", type=int, help="Run this share of the tasks, counted from 0 ...")
@click.option("--world-size", type=int, help="... of so many.")
@WORKERS
@JSON
def task(
    output: Path, indexes: tuple[int, ...], rank: int | None, world_size: int | None, workers: int | None, as_json: bool
) -> None:
    """Second step: run tasks of a planned job; those that are finished are passed over.

    Without --index this process runs its share: every W-th task from the R-th on. R and W are --rank and --world-size,
    or what the scheduler says: SLURM_ARRAY_TASK_ID and SLURM_PROCID in a Slurm job, JOB_COMPLETION_INDEX with
    JOB_COMPLETIONS, RANK with WORLD_SIZE; else all tasks are this process's.
    """
    if indexes and (rank is not None or world_size is not None):
        raise UsageError("--index names tasks, --rank a share of them; give one")
    from sft_shards.preprocess.engines.task_share import find_share
    from sft_shards.preprocess.job import run_tasks

    share = None if indexes else find_share(rank, world_size, os.environ)

    def choose(made: Any) -> list[int]:
        if share is not None:
            return list(share.of(len(made.tasks)))
        for number in indexes:
            if not 0 <= number < len(made.tasks):
                raise UsageError(f"--index {number}: the plan has tasks 0 to {len(made.tasks) - 1}")
        return sorted(set(indexes))

    done, tasks = run_tasks(output, choose, workers=workers)
    if as_json:
        click.echo(json.dumps({"done": done, "tasks": tasks}))
    elif not tasks:
        click.echo(f"{output}: complete already")
    else:
        click.echo(
            f"{done} of {tasks} tasks are finished by this process; then: sft-preprocess finalize --output {output}"
        )


@cli.command()
@OUTPUT
@LIMIT
@click.option("--wait", type=float, default=0.0, metavar="SECONDS", help="Wait so long for tasks that are missing.")
@JSON
def finalize(output: Path, max_rejects: str | None, wait: float, as_json: bool) -> None:
    """Last step: check what the tasks left, number the shards, write manifest.json.

    If tasks are missing it publishes nothing, lists them with the command that makes them, and exits with 1.
    """
    check_limit_text(max_rejects)
    from sft_shards.preprocess.job import await_tasks, finalize_only

    await_tasks(output, wait)
    _report(output, finalize_only(output, max_rejects=max_rejects), as_json)


def _report(output: Path, manifest: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_summary(manifest)))
        return
    for name, split in manifest.splits.items():
        share = split.trained_tokens / split.tokens
        click.echo(
            f"{name}: {split.sequences:,} sequences, {split.tokens:,} tokens, {split.trained_tokens:,} carry loss "
            f"({share:.1%}), longest {split.longest:,}, {len(split.shards)} shard(s)"
        )
    for reason, count in manifest.counts.rejected.items():
        click.echo(f"left out: {count:,} {reason} (see {output}/rejects.jsonl)")
    click.echo(f"wrote {output} with template {manifest.template['name']}; look at it: sft-preprocess inspect {output}")


def _summary(manifest: Any) -> dict[str, Any]:
    from dataclasses import asdict

    raw = asdict(manifest)
    for split in raw["splits"].values():
        split["shards"] = len(split["shards"])
    return {key: raw[key] for key in ("counts", "splits", "notes")} | {"template": raw["template"]["name"]}


for command in COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command; errors are one line on standard error, and the exit status says whose they are."""
    if runtime.is_ours():
        runtime.without_torch()
    try:
        cli(standalone_mode=False)
    except (UsageError, DataError) as error:
        click.echo(f"sft-preprocess: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if len(sys.argv) == 1:
            error.show()  # the help
        else:
            click.echo(f"sft-preprocess: {' '.join(error.format_message().split())} See --help.", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("sft-preprocess: interrupted; the same command goes on where it stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
