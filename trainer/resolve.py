"""Resolve a job before Megatron is initialised: flags, layout, stage and schedule.

    Job ──▶ flags ──▶ checks ──▶ stage ──▶ Decision ──▶ Megatron's own validation

Every error in the call or the shards is found here, and no GPU is needed: each worker resolves the job, and so do
`--dry-run` and `--slurm` on machines without GPUs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.cache_folder import cache_folder
from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer import compatibility, parallel_layout, stage_registry, summary
from sft_shards.trainer.data import scan
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.shards import open_shards, parse_shards, short_names
from sft_shards.trainer.isolation import choose, kernels
from sft_shards.trainer.job import Job, parse_epochs
from sft_shards.trainer.mcore import checkpoint_args, compat, cpu_device, flag_table, flags, resumed_packs
from sft_shards.trainer.model import hf_config, lora, special_tokens
from sft_shards.trainer.model import start as starting
from sft_shards.trainer.model.hf_config import ModelShape
from sft_shards.trainer.model.start import Start
from sft_shards.trainer.stage import Setup, Stage

NO_TOKENIZER = "--tokenizer-type=NullTokenizer"
"""The flag by which Megatron loads no tokenizer: the vocabulary is the shards'."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A resolved run; every rank resolves the same one."""

    stage: Stage
    argv: tuple[str, ...]
    """All of Megatron's flags: defaults, model shape, YAML file, call, and what follows from the shards."""
    padded: int
    """Rows of the embedding."""
    eval_pass: int
    """Samples of one evaluation, a multiple of the evaluation batch; 0: there is none."""
    start: Start
    """Where the weights come from."""
    summary: tuple[str, ...]
    """Lines to show before training."""

    def configure(self) -> compat.Configuration:
        """Let Megatron validate the flags, which sets its global state; UsageError if it refuses them."""
        return compat.configure(self.argv, {"padded_vocab_size": self.padded})


def decide(job: Job, world: int, parser: argparse.ArgumentParser | None = None) -> Decision:
    """Check the call and the shards against each other and the model.

    Args:
        world: processes on all machines.
        parser: knows Megatron's flags (default: Megatron's own, which imports Megatron).

    Raises:
        UsageError: the flags are wrong, or contradict each other or the model shape.
        DataError: the shards are damaged, or do not fit each other or the model.
        NeedsMegatronError: the call needs Megatron's own parser, and this is another one.
    """
    parser = parser or _own_parser()
    shape = _shape(job)
    forced = dict(cpu_device.FORCED) if job.device == "cpu" else {}
    given: dict[str, Any] = {"config": job.config, "config_path": job.config_path, "flags": job.flags}
    resolved = flags.resolve(parser, **given, forced=forced, shape=shape)
    if resolved.args.use_checkpoint_args:
        if shape is not None:
            option = "--hf-config" if job.model is None else "--model"
            raise UsageError(f"{option} and --use-checkpoint-args both say the model's shape; leave one of them out")
        shape = checkpoint_args.read(parser, resolved.args)
        resolved = flags.resolve(parser, **given, forced={**forced, "use-checkpoint-args": False}, shape=shape)
    args = resolved.args
    _check_loggers(args)
    evaluate = job.evaluate is not None
    layout = parallel_layout.from_flags(args, world, epochs=job.epochs is not None, evaluate=evaluate)
    shards = [parse_shards(text) for text in job.shards]
    directories = open_shards(path for path, _ in shards)
    cache = Cache(Path(job.cache_dir) if job.cache_dir else cache_folder())
    splits = ("train", job.evaluate) if job.evaluate else scan.SPLITS
    scan.check_layout(directories, splits)
    if not job.skip_scan:
        scan.check_values(directories, cache, splits)
    first = directories[0]
    compatibility.check_tokenizer(args, first.manifest.tokenizer, first.path)
    positions, rows, exact = layout.seq_length, 0, True
    if shape is not None:
        compatibility.check_length(shape, layout.seq_length, stretched="max_position_embeddings" in resolved.given)
        positions = shape.max_positions
        # A user who gives one of these flags knows how the checkpoint's embedding was padded.
        said = {"vocab_size", "padded_vocab_size", "make_vocab_size_divisible_by"} & resolved.given
        rows = 0 if said and job.model is None else shape.vocab_size
        exact = not said
    info = first.manifest.tokenizer
    vocabulary, padded = compatibility.model_vocabulary(args, info, layout.tensor, first.path, rows=rows, exact=exact)
    adapters = lora.parse(job, architecture=shape.architecture if shape is not None else "")
    if adapters is not None:
        lora.check(args)
    real = (shape.ids if shape is not None else None) or rows or vocabulary
    start = starting.choose(
        model=job.model,
        random=job.random_weights,
        args=args,
        shape=shape,
        rows=real,
        lora=adapters,
    )
    setup = Setup(
        job=job,
        args=args,
        layout=layout,
        isolation=choose.choose(
            asked=job.isolation,
            batching=job.batching,
            device=job.device,
            failures={**kernels.absent(), **job.failures},
            args=args,
            given=resolved.given,
        ),
        directories=tuple(
            (name, weight, directory)
            for name, (_, weight), directory in zip(
                short_names(each.path for each in directories), shards, directories, strict=True
            )
        ),
        cache=cache,
    )
    if setup.isolation.packed and not job.evaluate:
        resumed_packs.check(args)
    stage = stage_registry.load(job.stage)(setup)
    if job.evaluate and not stage.valid_samples():
        raise DataError(
            f"{', '.join(job.shards)}: no conversation with a trained token in split {job.evaluate}; "
            "'sft-preprocess run' makes one by --valid-fraction or --test-fraction"
        )

    if job.evaluate:
        steps = args.train_iters or 1
    elif job.epochs is not None:
        steps = -(-stage.samples(parse_epochs(job.epochs)) // layout.global_batch)
    else:
        steps = args.train_iters or -(-args.train_samples // layout.global_batch)
    valid = stage.valid_samples()
    in_part = "eval_iters" in resolved.given and not job.evaluate
    eval_iters = args.eval_iters if in_part else -(-valid // layout.eval_batch)
    eval_iters = eval_iters if valid else 0

    extra = [f"--eval-iters={eval_iters}", *setup.isolation.flags]
    if job.evaluate:
        extra += _evaluation(resolved)
    elif job.epochs is not None:
        extra += [f"--train-iters={steps}"]
    if args.tokenizer_type is None:
        extra += [NO_TOKENIZER, f"--vocab-size={real}"]
    if "max_position_embeddings" not in resolved.given:
        extra += [f"--max-position-embeddings={positions}"]
    return Decision(
        stage=stage,
        argv=(*resolved.argv, *extra, *_attention(setup, resolved), *_gradients(resolved), *_signals(resolved)),
        padded=padded,
        eval_pass=eval_iters * layout.eval_batch,
        start=start,
        summary=(
            *summary.lines(
                setup,
                stage,
                vocabulary=vocabulary,
                padded=padded,
                eval_iters=eval_iters,
                steps=steps,
                given=resolved.given,
            ),
            start.summary,
            *trust_warnings(args),
            *(special_tokens.warnings(Path(job.model), info) if job.model is not None else ()),
            *([lora.describe(adapters, args)] if adapters is not None else []),
        ),
    )


def decide_by_table(job: Job, world: int) -> Decision | None:
    """Decide as `decide` does, by the kept table of Megatron's flags, without importing torch or Megatron.

    Returns:
        None where no table is kept, or the call needs Megatron's own parser.

    Raises:
        UsageError, DataError: as `decide`.
    """
    parser = flag_table.load() if job.stage in stage_registry.BUILT_IN else None
    if parser is None:
        return None
    try:
        return decide(job, world, parser)
    except flag_table.NeedsMegatronError:
        return None


def _own_parser() -> argparse.ArgumentParser:
    """Return Megatron's own parser. Its flags are kept, so that the next call is checked without importing Megatron."""
    parser = compat.parser()
    if os.environ.get("RANK", "0") == "0":
        flag_table.keep(parser)
    return parser


def trust_warnings(args: Any) -> list[str]:
    """Name the folders whose checkpoints Megatron will unpickle, which nothing here can make safe."""
    named = (args.load, getattr(args, "pretrained_checkpoint", None))
    return [
        f"warning: {folder}: Megatron unpickles this checkpoint, which can run any code in it; load only what you trust"
        for folder in dict.fromkeys(named)
        if folder and starting.has_checkpoint(folder)
    ]


def _shape(job: Job) -> ModelShape | None:
    """The model shape that the call names; None: Megatron's flags give it."""
    if job.hf_config is not None and job.model is not None:
        raise UsageError("--hf-config and --model both say the model's shape; leave one of them out")
    if job.model is not None:
        return hf_config.read(job.model, option="--model")
    return hf_config.read(job.hf_config) if job.hf_config is not None else None


def _attention(setup: Setup, resolved: flags.Flags) -> list[str]:
    """Return the flags that choose who computes attention, as far as the user has not."""
    job, given = setup.job, resolved.given
    fusion = ["--no-rope-fusion"] if resolved.has("apply_rope_fusion") else []
    if kernels.missing(kernels.TE):
        return fusion  # it is part of Transformer Engine
    chosen = "attention_backend" in given or not resolved.has("attention_backend")
    if setup.isolation.kind != kernels.TE or not job.attention or chosen:
        return []
    return [f"--attention-backend={job.attention}"]


def _gradients(resolved: flags.Flags) -> list[str]:
    """Return the flag that switches off gradient accumulation in Apex's kernel if the kernel is not installed.

    Megatron's own linear layers, of which the output layer always is one, refuse to run otherwise.
    """
    there = importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None
    return [] if there or "gradient_accumulation_fusion" in resolved.given else ["--no-gradient-accumulation-fusion"]


def _evaluation(resolved: flags.Flags) -> list[str]:
    """Return the flags by which `pretrain()` evaluates and does nothing else.

    Megatron multiplies --train-iters with the batch size, and builds an optimizer before 0.19, even then.
    """
    args = resolved.args
    needed = [] if args.train_iters or args.train_samples else ["--train-iters=1"]
    return [*needed, *([] if args.lr is not None else ["--lr=0"]), "--skip-train", "--no-load-optim", "--no-load-rng"]


def _check_loggers(args: Any) -> None:
    """Raise UsageError for a log that cannot be written: Megatron leaves TensorBoard's out without an error."""
    for flag, package, remedy in (
        ("tensorboard_dir", "tensorboard", "pip install 'sft-shards[logging]'"),
        ("wandb_project", "wandb", "pip install wandb"),
    ):
        if getattr(args, flag, None) and importlib.util.find_spec(package) is None:
            option = f"--{flag.replace('_', '-')}"
            raise UsageError(f"{option} needs the package {package}, which is not installed: {remedy}, or leave it out")


def _signals(resolved: flags.Flags) -> list[str]:
    """Return the flag by which a run with --save saves a checkpoint when SIGTERM comes.

    `sft_shards.trainer.launch.preemption` passes signals on to the workers as SIGTERM.
    """
    if "exit_signal" in resolved.given:
        raise UsageError("--exit-signal: sft-train passes every signal on to its workers as SIGTERM; leave it out")
    return ["--exit-signal-handler"] if resolved.args.save and resolved.has("exit_signal_handler") else []
