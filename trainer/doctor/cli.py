"""The command `sft-train doctor`."""

from __future__ import annotations

import json
import sys

import click
from click.core import ParameterSource

from sft_shards.formats.errors import UsageError
from sft_shards.formats.terminal import coloured
from sft_shards.trainer.doctor.examine import examine
from sft_shards.trainer.doctor.imports import gather
from sft_shards.trainer.doctor.machine import Machine
from sft_shards.trainer.doctor.report import as_json, as_text, can_train
from sft_shards.trainer.job import DEVICES


@click.command()
@click.option("--shards", multiple=True, metavar="DIR", help="Also check this shard directory; repeatable.")
@click.option("--device", type=click.Choice(DEVICES), default="gpu", help="What to train on (default: gpu).")
@click.option("--json", "as_values", is_flag=True, help="Write the report as JSON.")
@click.pass_context
def doctor(ctx: click.Context, /, shards: tuple[str, ...], device: str, as_values: bool) -> int:
    """Examine this machine: can it train, and if not, what is missing?

    Exit status 0: it can train; 1: a line is failing.
    """
    _check_call(ctx)
    findings = examine(Machine(device=device, shards=shards, imported=gather()))
    if as_values:
        click.echo(json.dumps(as_json(findings, device=device), indent=2, ensure_ascii=False))
    else:
        colour = coloured(sys.stdout)
        click.echo(as_text(findings, device=device, colour=colour), color=colour)
    return 0 if can_train(findings) else 1


def _check_call(ctx: click.Context) -> None:
    """Raise UsageError if an option or flag of `sft-train` itself would be ignored."""
    if ctx.meta.get("flags"):
        raise UsageError("doctor takes no Megatron flags; leave out what follows --")
    above = ctx.parent
    for name in above.params if above is not None else ():
        if above is not None and above.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = name.removesuffix("_path").replace("_", "-")
            raise UsageError(f"--{option} is given before doctor; put it after doctor, or leave it out")
