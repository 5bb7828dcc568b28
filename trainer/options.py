"""Options of `sft-train` that say where a run starts, and their checks against each other.

`target_options` declares them, `check` makes a `Target` of them. Options of training itself are in `cli`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sft_shards.formats.errors import UsageError
from sft_shards.formats.sbatch import site_options
from sft_shards.trainer.launch import nodes
from sft_shards.trainer.launch.container import RUNTIMES, Container, check_image
from sft_shards.trainer.launch.nodes import Nodes
from sft_shards.trainer.launch.slurm import Slurm
from sft_shards.trainer.launch.target import Target

OPTIONS = (
    click.option(
        "--dry-run",
        is_flag=True,
        help="Check everything, print environment, torchrun command and flags, and start nothing.",
    ),
    click.option(
        "--nnodes",
        type=click.IntRange(1),
        envvar="NNODES",
        help="Machines that are started by hand (default: $NNODES, or 1).",
    ),
    click.option(
        "--node-rank", type=int, envvar="NODE_RANK", help="Which of them this is, from 0 (default: $NODE_RANK)."
    ),
    click.option(
        "--master-addr", envvar="MASTER_ADDR", metavar="HOST", help="Host name of node 0 (default: $MASTER_ADDR)."
    ),
    click.option(
        "--master-port",
        type=click.IntRange(1, 65535),
        envvar="MASTER_PORT",
        help="A free port on node 0 (default: $MASTER_PORT, or 29500).",
    ),
    click.option("--slurm", is_flag=True, help="Submit a batch script to Slurm; with --dry-run print it."),
    click.option("--nodes", type=click.IntRange(1), help="slurm: number of machines (default: 1)."),
    click.option(
        "--slurm-option",
        multiple=True,
        metavar="KEY=VALUE",
        help="slurm: an option of sbatch, such as partition=gpu, account=lab, time=8:00:00; repeatable.",
    ),
    click.option(
        "--slurm-setup", help="slurm: shell lines before the command, such as 'module load rocm' (default: none)."
    ),
    click.option(
        "--container", metavar="IMAGE", help="slurm: run in this container image on each node (default: no container)."
    ),
    click.option(
        "--container-runtime", type=click.Choice(RUNTIMES), help="slurm: what runs the container (default: pyxis)."
    ),
    click.option(
        "--container-mount", multiple=True, metavar="SRC[:DST]", help="slurm: mount another folder; repeatable."
    ),
    click.option(
        "--container-option",
        multiple=True,
        metavar="WORD",
        help="slurm: another option of the container runtime; repeatable.",
    ),
)
# Options by what they need: no --slurm; --slurm; --container.
BY_HAND = ("nnodes", "node_rank", "master_addr", "master_port")
FOR_SLURM = ("nodes", "slurm_option", "slurm_setup", "container")
FOR_CONTAINER = ("container_runtime", "container_mount", "container_option")


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def check(ctx: click.Context, options: dict[str, Any]) -> Target:
    """Remove the options of this file from `options`, check them, and return the target of the run.

    Raises:
        UsageError: they contradict each other, or node 0 cannot be resolved.
    """
    own = {option: options.pop(option) for option in ("dry_run", "slurm", *BY_HAND, *FOR_SLURM, *FOR_CONTAINER)}
    given = [name for name in own if own[name] and _on_command_line(ctx, name)]
    for names, needed in ((FOR_SLURM, "slurm"), (FOR_CONTAINER, "container")):
        alone = [name for name in names if name in given and not own[needed]]
        if alone:
            raise UsageError(f"{_option(alone[0])} is for --{needed}; add --{needed}, or leave it out")
    if not own["slurm"]:
        by_hand = nodes.parse(
            own["nnodes"] or 1, own["node_rank"], own["master_addr"], own["master_port"] or nodes.PORT
        )
        return Target(dry_run=own["dry_run"], nodes=by_hand, slurm=None, words=())
    if twice := [name for name in BY_HAND if name in given]:
        raise UsageError(f"{_option(twice[0])} is set by the batch script of --slurm; leave it out, and give --nodes")
    container = None
    if own["container"]:
        runtime = own["container_runtime"] or RUNTIMES[0]
        check_image(own["container"], runtime)
        container = Container(
            image=own["container"], runtime=runtime, mounts=own["container_mount"], options=own["container_option"]
        )
    slurm = Slurm(
        nodes=own["nodes"] or 1,
        options=site_options(own["slurm_option"]),
        setup=own["slurm_setup"] or "",
        container=container,
    )
    return Target(
        dry_run=own["dry_run"], nodes=Nodes(count=slurm.nodes), slurm=slurm, words=tuple(_words(ctx, set(own)))
    )


def _on_command_line(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(ctx: click.Context, without: set[str]) -> list[str]:
    """Return the words of the call, without the options in `without`."""
    words: list[str] = []
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if name in without or not _on_command_line(ctx, name):
            continue
        value = ctx.params[name]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0])
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words += [parameter.opts[0], str(each)]
    flags = ctx.meta["flags"]
    return [*words, *(["--", *flags] if flags else [])]
