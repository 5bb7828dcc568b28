"""The command `sft-train`: read the call, check what needs no torch, and start or submit the job.

Nothing here imports torch or Megatron, so that `--help` and a wrong call answer at once.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import click

from sft_shards.formats.errors import DataError, UsageError, nearest
from sft_shards.formats.scripts import all_checked, checked
from sft_shards.formats.terminal import say
from sft_shards.trainer import compatibility, options, stage_registry, yaml_config
from sft_shards.trainer.chat.cli import chat
from sft_shards.trainer.data.pack_plan import BATCHING, OVERLONG
from sft_shards.trainer.data.shards import open_shards, parse_shards
from sft_shards.trainer.doctor.cli import doctor
from sft_shards.trainer.isolation.choose import ISOLATIONS
from sft_shards.trainer.job import DEVICES, EVALUATE, Job, parse_epochs
from sft_shards.trainer.launch.preemption import StoppedError
from sft_shards.trainer.launch.target import Target
from sft_shards.trainer.model import hf_config, hub
from sft_shards.trainer.model.export_cli import export

INTERRUPTED = 130


class Command(click.Group):
    """A group whose own command takes Megatron's flags after `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what follows the first `--`, in which click would look for a subcommand."""
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta["flags"] = args[cut + 1 :]
        return super().parse_args(ctx, args[:cut])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a subcommand; for a word that is none, say where Megatron's flags go."""
        if self.get_command(ctx, args[0]) is None:
            raise click.UsageError(
                f"No such command {args[0]!r}; {nearest(args[0], self.commands)}. Megatron's flags go after '--', as "
                "in 'sft-train --shards DIR -- --num-layers 2'."
            )
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what follows the command's name in the usage line."""
        return ["--shards DIR [OPTIONS] [-- MEGATRON FLAGS]"]


@click.group(cls=Command, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sft-shards", message="%(package)s %(version)s")
@click.option(
    "--shards",
    multiple=True,
    metavar="DIR[:WEIGHT]",
    help="Shard directory to train on, and its epochs per epoch of the mixture (default: 1); repeatable.",
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE.yaml",
    help="YAML file with options and Megatron's flags as a flat mapping.",
)
@click.option(
    "--model",
    metavar="DIR_OR_HUB_NAME",
    help="Start from a Hugging Face model: its shape, weights and vocabulary.",
)
@click.option(
    "--revision",
    metavar="COMMIT",
    help="Commit, tag or branch of a --model from the Hub (default: the newest commit).",
)
@click.option("--random-weights", is_flag=True, default=None, help="Start from random weights.")
@click.option("--hf-config", metavar="DIR_OR_FILE", help="Take the model shape from this Hugging Face config.json.")
@click.option("--device", type=click.Choice(DEVICES), help="Train on GPUs, or rehearse on the CPU (default: gpu).")
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    help="Worker processes on this machine (default: one per GPU; 1 with --device cpu).",
)
@click.option(
    "--stage",
    metavar="NAME",
    help="sft (loss where the mask is 1), pretrain (loss on every token), or an installed stage (default: sft).",
)
@click.option(
    "--epochs",
    metavar="N",
    help="Epochs of the mixture to train for, such as 3 or 0.5 (default: --train-iters or --train-samples says).",
)
@click.option(
    "--evaluate",
    type=click.Choice(EVALUATE),
    help="Read this split once and print its loss, and train nothing (default: no split is, and the run trains).",
)
@click.option(
    "--batching",
    type=click.Choice(BATCHING),
    help="Fill each sample with conversations (packed), or give each conversation its own (padded) (default: packed).",
)
@click.option(
    "--isolation",
    type=click.Choice(ISOLATIONS),
    help="What keeps packed conversations apart: attention of Transformer Engine (te), flash-attn (flash) or torch "
    "(torch, sdpa), or the first of them that works here (default: auto).",
)
@click.option(
    "--overlong",
    type=click.Choice(OVERLONG),
    help="What happens to a conversation longer than --seq-length + 1 tokens: its end is cut off, or it is left out "
    "(default: truncate).",
)
@click.option(
    "--cache-dir",
    metavar="DIR",
    help="Folder of cached pack plans (default: $SFT_SHARDS_CACHE, or ~/.cache/sft-shards).",
)
@click.option(
    "--skip-scan",
    is_flag=True,
    default=None,
    help="Do not check every id and mask value before training (default: each directory is checked once, and what was "
    "found is kept in the cache).",
)
@click.option(
    "--loss-chunk",
    type=int,
    metavar="N",
    help="Trained positions whose logits are held at a time; what is above is computed again in the backward pass "
    "(default: 4096).",
)
@click.option(
    "--log-batches",
    type=int,
    metavar="N",
    help="Write the batches of the first N steps as a page of HTML, what carries loss marked: batches.html in the "
    "folder of --save, or sft-train-batches.html here (default: none).",
)
@click.option(
    "--no-balance",
    is_flag=True,
    default=None,
    help="Leave the samples of a global batch in the order of the mixture (default: they are dealt by cost, so that "
    "data-parallel ranks and pipeline stages wait less for each other).",
)
@click.option(
    "--lora-rank",
    type=int,
    metavar="R",
    help="Train LoRA adapters of this rank; the model's own weights are frozen (default: all weights are trained).",
)
@click.option(
    "--lora-alpha",
    type=float,
    metavar="A",
    help="Strength of the adapters: their output is multiplied by A / R (default: twice the rank).",
)
@click.option("--lora-dropout", type=float, metavar="P", help="Dropout on the input of the adapters (default: 0).")
@click.option(
    "--lora-targets",
    metavar="LIST",
    help="Linear layers with an adapter (default: q,k,v,o,gate,up,down; of a mixture of experts q,k,v,o).",
)
@options.target_options
@click.pass_context
def cli(ctx: click.Context, /, shards: tuple[str, ...], config_path: str | None, nproc: int | None, **own: Any) -> None:
    """Train on shards through Megatron's own pretrain().

    What follows -- are Megatron's flags; they win over the file. Without tokenizer flags the vocabulary is the
    shards'.

    \b
    sft-train --shards shards --device cpu --random-weights -- --num-layers 2
        --hidden-size 64 --num-attention-heads 4 --seq-length 256 --train-iters 60 --lr 1e-3
    sft-train --shards mine --shards general:0.3 --model DIR --epochs 3 --config run.yaml
    sft-train --shards shards --model DIR --config run.yaml --slurm --nodes 4 -- --save out --load out
    """
    if ctx.invoked_subcommand is not None:
        return
    target = options.check(ctx, own)
    revision = own.pop("revision")
    file = yaml_config.read(config_path) if config_path else yaml_config.Config()
    directories = tuple(shards or file.own.get("shards", ()))
    if not directories:
        raise UsageError("--shards is missing: name the directory that 'sft-preprocess run' wrote")
    in_file = {name.replace("-", "_"): value for name, value in file.own.items() if name not in ("shards", "nproc")}
    if own.get("model") or own.get("hf_config"):  # one of them says the model shape, and the call wins over the file
        in_file = {name: value for name, value in in_file.items() if name not in ("model", "hf_config", "revision")}
    revision = revision or in_file.pop("revision", None)
    job = Job(
        shards=directories,
        config=file.megatron,
        config_path=config_path or "",
        flags=tuple(ctx.meta["flags"]),
        **{**in_file, **_without_none(own)},
    )
    if job.model is not None:
        job = dataclasses.replace(job, model=hub.folder(job.model, revision))
    elif revision is not None:
        raise UsageError(f"--revision {revision}: it is for a --model from the Hub; leave it out, or name one")
    stage_registry.check(job.stage)
    if job.epochs is not None:
        parse_epochs(job.epochs)
    opened = open_shards(parse_shards(text)[0] for text in directories)
    for named, option in ((job.hf_config, "--hf-config"), (job.model, "--model")):
        if named is not None:
            shape = hf_config.read(named, option=option)
            compatibility.check_shards(shape, opened[0].manifest.tokenizer, opened[0].path)
    _start(job, nproc or file.own.get("nproc"), target)


def _start(job: Job, nproc: int | None, target: Target) -> None:
    """Start the job on this machine, submit it to Slurm, or with --dry-run show what would be started."""
    _check_characters(job)
    if target.slurm is not None:
        from sft_shards.trainer.launch.slurm import submit

        submit(job, nproc, target.slurm, target.words, dry_run=target.dry_run)
        return
    from sft_shards.trainer.launch.launcher import launch, plan
    from sft_shards.trainer.mcore.compat import check_installed

    check_installed()
    if target.dry_run:
        from sft_shards.trainer.launch.dry_run import check, script

        planned = plan(job, nproc, target.nodes)
        click.echo(script(planned, check(planned)), nl=False)
        return
    launch(job, nproc, target.nodes)


def _check_characters(job: Job) -> None:
    """Raise UsageError if an option, a flag or a value of the YAML file holds a control character."""
    for name, value in job.config.items():
        all_checked(
            value if isinstance(value, list) else [value], f"{job.config_path}: {checked(name, job.config_path)}"
        )
    all_checked(job.flags, "the flags after --")
    for option, path in (("--shards", job.shards), ("--model", (job.model,)), ("--hf-config", (job.hf_config,))):
        all_checked(path, option)
    all_checked((job.config_path, job.cache_dir, job.lora_targets, job.stage), "the call")


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 data or machine, 2 the call, 130 interrupted, 200 saved after a signal."""
    sys.exit(status(argv))


def status(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; an error becomes one line on standard error."""
    try:
        result: Any = cli.main(list(argv) if argv is not None else None, "sft-train", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.NoSuchOption as error:
        return _fail(f"{error.format_message()} Megatron's flags go after '--'.", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except (UsageError, DataError, StoppedError) as error:
        return _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; what was not saved is lost", INTERRUPTED)


def _fail(message: str, code: int) -> int:
    say(f"sft-train: {' '.join(message.split())}", err=True)
    return code


cli.add_command(doctor)
cli.add_command(export)
cli.add_command(chat)

if __name__ == "__main__":
    main()
