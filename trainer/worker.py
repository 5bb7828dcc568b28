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
from typing import Any

from formats.errors import DataError, UsageError
from trainer import checks, cpu, flags, megatron, summary
from trainer.data import select
from trainer.job import Job
from trainer.provider import DatasetProvider


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
    resolved = flags.resolve(
        megatron.parser(),
        config=job.config,
        config_path=job.config_path,
        flags=job.flags,
        forced=cpu.FORCED if job.device == "cpu" else None,
    )
    args = resolved.args
    layout = checks.layout(args, world)
    directories = checks.open_shards(job.shards)
    first = directories[0]
    tokenizer = first.manifest.tokenizer
    checks.check_tokenizer(args, tokenizer, first.path)
    vocabulary, padded = checks.model_vocabulary(args, tokenizer, layout.tensor, first.path)

    def selection(split: str) -> Any:
        splits = [each.split(split) for each in directories if split in each.manifest.splits]
        return select(splits, seq_length=layout.seq_length, overlong=job.overlong)

    train, valid = selection("train"), selection("valid")
    if not len(train):
        raise DataError(
            f"{', '.join(job.shards)}: none of {train.stored} conversations has a trained token within "
            f"--seq-length {layout.seq_length} (--overlong {job.overlong}); raise --seq-length"
        )
    eval_iters = args.eval_iters if "eval_iters" in resolved.given else -(-len(valid) // layout.eval_batch)
    eval_iters = eval_iters if len(valid) else 0

    if rank == 0:
        for line in summary.lines(job, args, layout, train, valid, vocabulary, padded, eval_iters):
            print(f"sft-train: {line}", file=sys.stderr, flush=True)

    extra = [f"--eval-iters={eval_iters}"]
    if args.tokenizer_type is None:
        extra += ["--tokenizer-type=NullTokenizer", f"--vocab-size={vocabulary}"]
    if "max_position_embeddings" not in resolved.given:
        extra += [f"--max-position-embeddings={layout.seq_length}"]
    if job.device == "gpu" and "transformer_impl" not in resolved.given:
        from trainer.model import has_transformer_engine

        extra += [] if has_transformer_engine() else ["--transformer-impl=local"]
    validated = megatron.configure((*resolved.argv, *extra), {"padded_vocab_size": padded})
    provider = DatasetProvider(
        train=train,
        valid=valid if len(valid) and eval_iters else None,
        seq_length=layout.seq_length,
        pad_id=tokenizer.pad_id,
        seed=args.seed,
        eval_pass=eval_iters * layout.eval_batch,
    )
    return validated, provider


def run(job: Job) -> None:
    """Train; raises what `prepare` raises."""
    args, provider = prepare(job)
    from trainer.forward import forward_step
    from trainer.model import model_provider

    megatron.pretrain(args, provider=provider, model_provider=model_provider, forward_step=forward_step)


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
