"""The command `sft-train export`."""

from __future__ import annotations

import time

import click

from sft_shards.formats.errors import UsageError
from sft_shards.formats.terminal import say


@click.command(name="export")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--output", required=True, metavar="DIR", help="Folder to write; must not be there.")
@click.option("--step", type=click.IntRange(0), help="Which iteration (default: the last).")
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp32"]), help="What weights are written in (default: as they were trained)."
)
@click.option("--merge", is_flag=True, help="Of adapters: add them to the base and write the whole model.")
@click.option(
    "--model",
    metavar="DIR",
    help="Folder with the model's config.json and tokenizer (default: CHECKPOINT/hf, which training wrote); of "
    "adapters, their base (default: where it was).",
)
@click.pass_context
def export(
    ctx: click.Context,
    /,
    checkpoint: str,
    output: str,
    step: int | None,
    dtype: str | None,
    merge: bool,
    model: str | None,
) -> int:
    """Write a checkpoint as a Hugging Face model.

    CHECKPOINT is the folder that --save named, of the format torch_dist. Neither Megatron nor a GPU is needed.
    """
    if ctx.meta.get("flags"):
        raise UsageError("export takes no Megatron flags; leave out what stands after --")
    from sft_shards.trainer.model import export as exporting

    began = time.monotonic()
    made = exporting.export(checkpoint, output, step=step, dtype=dtype, merge=merge, model=model)
    seconds = time.monotonic() - began
    say(f"{made.folder}: {made.tensors:,} tensors, {made.bytes / 1e9:.2f} GB in {seconds:.0f} s")
    return 0
