"""One training process: `torchrun … -m trainer.worker JOB`, started by `trainer.launch`.

    Job ─▶ flags ─▶ checks ─▶ what to train on ─▶ Megatron's pretrain()

Everything that can be wrong with the call or the shards is found before Megatron is initialised. A clean failure
is written where torchrun reads it (its error file) and shown once, by the launcher.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from formats.errors import DataError, UsageError
from trainer import checkpoint, checks, cpu, fit, flags, hf_config, isolation, megatron, stages, summary
from trainer.cache import Cache, default_root
from trainer.job import Job
from trainer.model import has_transformer_engine
from trainer.provider import DatasetProvider
from trainer.stage import Setup


def prepare(job: Job) -> tuple[Any, DatasetProvider]:
    """Check the call and the shards, and have Megatron validate its flags.

    Returns:
        Megatron's validated arguments (its global state is set), and the data set provider.

    Raises:
        UsageError: the flags are wrong.
        DataError: the shards are, or do not fit the model.
    """
    megatron.check_installed()
    if job.device == "cpu":
        with megatron.quiet():
            cpu.install()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with megatron.quiet():
        warning = megatron.check_version()
    if warning and rank == 0:
        print(f"sft-train: warning: {warning}", file=sys.stderr, flush=True)
    parser = megatron.parser()
    shape = hf_config.read(job.hf_config) if job.hf_config is not None else None
    forced = dict(cpu.FORCED) if job.device == "cpu" else {}
    given: dict[str, Any] = {"config": job.config, "config_path": job.config_path, "flags": job.flags}
    resolved = flags.resolve(parser, **given, forced=forced, shape=shape)
    if resolved.args.use_checkpoint_args:
        if shape is not None:
            raise UsageError("--hf-config and --use-checkpoint-args both say the model's shape; leave one of them out")
        shape = checkpoint.read(parser, resolved.args)
        resolved = flags.resolve(parser, **given, forced={**forced, "use-checkpoint-args": False}, shape=shape)
    args = resolved.args
    layout = checks.layout(args, world, epochs=job.epochs is not None)
    shards = [checks.parse_shards(text) for text in job.shards]
    directories = checks.open_shards(path for path, _ in shards)
    first = directories[0]
    checks.check_tokenizer(args, first.manifest.tokenizer, first.path)
    positions, rows = layout.seq_length, 0
    if shape is not None:
        fit.check_length(shape, layout.seq_length, stretched="max_position_embeddings" in resolved.given)
        positions = shape.max_positions
        # Whoever says something about the vocabulary knows how the checkpoint was made.
        said = {"vocab_size", "padded_vocab_size", "make_vocab_size_divisible_by"} & resolved.given
        rows = 0 if said else shape.vocab_size
    info = first.manifest.tokenizer
    vocabulary, padded = checks.model_vocabulary(args, info, layout.tensor, first.path, rows=rows)
    engine = has_transformer_engine()
    setup = Setup(
        job=job,
        args=args,
        layout=layout,
        isolation=isolation.choose(
            asked=job.isolation,
            batching=job.batching,
            device=job.device,
            trial=job.trial,
            engine=engine,
            args=args,
            given=resolved.given,
        ),
        directories=tuple(
            (name, weight, directory)
            for name, (_, weight), directory in zip(
                checks.short_names(each.path for each in directories), shards, directories, strict=True
            )
        ),
        cache=Cache(Path(job.cache_dir) if job.cache_dir else default_root()),
    )
    stage = stages.load(job.stage)(setup)

    if job.epochs is not None:
        steps = -(-stage.samples(checks.parse_epochs(job.epochs)) // layout.global_batch)
    else:
        steps = args.train_iters or -(-args.train_samples // layout.global_batch)
    valid = stage.valid_samples()
    eval_iters = args.eval_iters if "eval_iters" in resolved.given else -(-valid // layout.eval_batch)
    eval_iters = eval_iters if valid else 0
    if rank == 0:
        for line in summary.lines(
            setup, stage, vocabulary=vocabulary, padded=padded, eval_iters=eval_iters, steps=steps
        ):
            print(f"sft-train: {line}", file=sys.stderr, flush=True)

    extra = [f"--eval-iters={eval_iters}", *setup.isolation.flags]
    if job.epochs is not None:
        extra += [f"--train-iters={steps}"]
    if args.tokenizer_type is None:
        extra += ["--tokenizer-type=NullTokenizer", f"--vocab-size={vocabulary}"]
    if "max_position_embeddings" not in resolved.given:
        extra += [f"--max-position-embeddings={positions}"]
    if not engine:
        extra += [] if "transformer_impl" in resolved.given else ["--transformer-impl=local"]
        extra += ["--no-rope-fusion"] if hasattr(args, "apply_rope_fusion") else []  # it is Transformer Engine's
    validated = megatron.configure((*resolved.argv, *extra), {"padded_vocab_size": padded})
    return validated, DatasetProvider(stage=stage, eval_pass=eval_iters * layout.eval_batch)


def run(job: Job) -> None:
    """Train; raises what `prepare` raises."""
    args, provider = prepare(job)
    stage = provider.stage
    megatron.pretrain(args, provider=provider, model_provider=stage.model_provider(), forward_step=stage.forward_step())


def main(start: Callable[[Job], None] = run) -> int:
    """Run the job in `sys.argv`; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is reported once, by the launcher
    job = Job.loads(sys.argv[1])
    try:
        start(job)
    except (UsageError, DataError) as error:
        report = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not report:
            print(f"sft-train: {error}", file=sys.stderr)
            return error.exit_code
        with open(report, "w", encoding="utf-8") as file:
            json.dump({"message": str(error), "timestamp": int(time.time())}, file)
        return error.exit_code
    return 0


if __name__ == "__main__":  # Megatron's checkpoint writers import this module again
    sys.exit(main())
