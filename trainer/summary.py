"""What is printed before training: what will be trained on, what was left out, in which layout."""

from __future__ import annotations

from argparse import Namespace

from trainer.checks import Layout
from trainer.data import Selection
from trainer.job import Job


def lines(
    job: Job,
    args: Namespace,
    layout: Layout,
    train: Selection,
    valid: Selection,
    vocabulary: int,
    padded: int,
    eval_iters: int,
) -> list[str]:
    """The summary, line by line."""
    samples = args.train_samples or args.train_iters * layout.global_batch
    steps = args.train_iters or -(-samples // layout.global_batch)
    if not len(valid):
        evaluation = "no validation split, so no validation loss"
    elif not eval_iters:
        evaluation = "no validation (--eval-iters 0)"
    else:
        seen = min(len(valid), eval_iters * layout.eval_batch)
        evaluation = f"validation: {seen:,} of {_selected(valid)}, every {args.eval_interval} steps and at the end"
    where = "CPU (standing in for a GPU)" if job.device == "cpu" else "GPU"
    return [
        f"shards: {', '.join(job.shards)}",
        f"train: {_selected(train)}{_left_out(train, layout)}",
        f"{evaluation}{_left_out(valid, layout)}",
        f"model vocabulary: {padded:,} rows for {vocabulary:,} ids",
        f"{where}: {layout.world} process(es), TP {layout.tensor} x PP {layout.pipeline} x DP {layout.data}; "
        f"{layout.seq_length:,} positions, micro-batch {layout.micro_batch}, global batch {layout.global_batch}",
        f"{steps:,} steps of {layout.global_batch} = {samples:,} samples = {samples / len(train):.2f} epochs",
    ]


def _selected(selection: Selection) -> str:
    return (
        f"{len(selection):,} conversations, {selection.tokens:,} tokens, {selection.trained_tokens:,} of them trained"
    )


def _left_out(selection: Selection, layout: Layout) -> str:
    limit = f"{layout.seq_length + 1:,} tokens"
    notes = [
        f"{selection.cut:,} cut at {limit}" if selection.cut else "",
        f"{selection.overlong:,} longer than {limit} dropped" if selection.overlong else "",
        f"{selection.untrained:,} without a trained token left out" if selection.untrained else "",
    ]
    return "".join(f"; {note}" for note in notes if note)
