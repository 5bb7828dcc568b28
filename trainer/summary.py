"""The lines printed before training: the data, what was left out, the layout and the schedule."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

from sft_shards.trainer.data.mixture import Mixture
from sft_shards.trainer.data.pack_plan import Counts
from sft_shards.trainer.stage import Setup, Stage


def lines(
    setup: Setup, stage: Stage, *, vocabulary: int, padded: int, eval_iters: int, steps: int, given: Collection[str]
) -> list[str]:
    """Return the summary, line by line.

    Args:
        vocabulary: ids that the model must know.
        padded: rows of the embedding.
        eval_iters: steps of one evaluation; 0: there is none.
        steps: optimizer steps of the whole run.
        given: destinations of Megatron's flags that the user set.
    """
    layout, args, job = setup.layout, setup.args, setup.job
    where = "CPU (standing in for a GPU)" if job.device == "cpu" else "GPU"
    info = setup.directories[0][2].manifest.tokenizer
    model = [
        f"tokenizer: {info.name} ({info.vocab_size:,} ids, EOS {info.eos_id}){_agreement(setup)}",
        f"model vocabulary: {padded:,} rows for {vocabulary:,} ids",
        f"{where}: {layout.world} process(es), {layout}; {layout.seq_length:,} positions, "
        f"micro-batch {layout.micro_batch}, global batch {layout.global_batch}"
        + ("" if "global_batch_size" in given else " (default: one micro-batch on each DP rank; --global-batch-size)"),
    ]
    isolation = f"isolation: {setup.isolation.kind} ({setup.isolation.reason})"
    shards = f"shards: {', '.join(job.shards)}"
    if job.evaluate:
        assert stage.valid is not None
        content = _content(stage.valid, layout.seq_length)
        read = f"evaluation of split {job.evaluate}: {content}{_left_out(stage.valid.counts, layout.seq_length)}"
        return [shards, read, isolation, *model, "nothing is trained (--evaluate)"]
    assert stage.train is not None
    samples = steps * layout.global_batch
    epoch = stage.samples(Fraction(1))
    valid = stage.valid_samples()
    if not valid:
        evaluation = "no validation split, so no validation loss"
    elif not eval_iters:
        evaluation = "no validation (--eval-iters 0)"
    else:
        assert stage.valid is not None
        seen = min(valid, eval_iters * layout.eval_batch)
        evaluation = (
            f"validation: {seen:,} of {_content(stage.valid, layout.seq_length)}, every {args.eval_interval} steps and "
            f"at the end{_left_out(stage.valid.counts, layout.seq_length)}"
        )
    return [
        shards,
        *_tree(stage.train, samples / epoch),
        f"train: {_content(stage.train, layout.seq_length)}{_left_out(stage.train.counts, layout.seq_length)}",
        isolation,
        evaluation,
        *model,
        *_balance(stage),
        f"{steps:,} steps of {layout.global_batch} = {samples:,} samples = {samples / epoch:.2f} epochs of {epoch:,}"
        f"; a step has {_a_step(stage.train, layout.global_batch)}",
        _optimizer(args, given),
    ]


def _tree(mixture: Mixture, epochs: float) -> list[str]:
    """Return a line for each source of a mixture of several: what it holds, how often it is shown, and its share."""
    if len(mixture.sources) == 1:
        return []
    trained = [float(source.weight) * source.plan.counts.trained_tokens for source in mixture.sources]
    branches = ["├─"] * (len(trained) - 1) + ["└─"]
    return [
        f"  {branch} {source.name}: {source.plan.counts.conversations:,} conversations in {len(source.plan):,} samples "
        f"x {float(source.weight):g} an epoch; {float(source.weight) * epochs:.2f} times in this run, "
        f"{part / max(1.0, sum(trained)):.1%} of the trained tokens"
        for branch, source, part in zip(branches, mixture.sources, trained, strict=True)
    ]


def _a_step(mixture: Mixture, global_batch: int) -> str:
    """Return how many positions a step fills on average, and how many of them carry loss."""
    weights = [float(source.weight) for source in mixture.sources]
    plans = [source.plan for source in mixture.sources]
    packs = sum(weight * len(plan) for weight, plan in zip(weights, plans, strict=True))
    filled = sum(weight * plan.counts.positions for weight, plan in zip(weights, plans, strict=True))
    trained = sum(weight * plan.counts.trained_tokens for weight, plan in zip(weights, plans, strict=True))
    return f"{filled / packs * global_batch:,.0f} tokens, {trained / packs * global_batch:,.0f} of them trained"


def _agreement(setup: Setup) -> str:
    """Return what is known of the shards' tokenizer and the model's; where they differ, the run was refused before."""
    job = setup.job
    if job.model is not None and (Path(job.model) / "tokenizer.json").is_file():
        return f", the vocabulary of {job.model}"
    return "" if job.model is None else f"; {job.model} has no tokenizer.json to compare"


def _optimizer(args: Namespace, given: Collection[str]) -> str:
    """Return optimizer and learning rate; what nobody set is marked as a default."""

    def value(name: str, text: str) -> str:
        return text if name in given else f"{text} (default)"

    warmup = next((n for n in ("lr_warmup_fraction", "lr_warmup_iters", "lr_warmup_samples") if getattr(args, n)), None)
    unit = {"lr_warmup_fraction": "of the run", "lr_warmup_iters": "steps", "lr_warmup_samples": "samples"}
    parts = [
        value("optimizer", args.optimizer),
        f"learning rate {args.lr:g}",
        value("lr_decay_style", f"{args.lr_decay_style} decay"),
        value("min_lr", f"to {args.min_lr:g}"),
        f"warm-up {getattr(args, warmup):g} {unit[warmup]}" if warmup else "no warm-up (default)",
        value("weight_decay", f"weight decay {args.weight_decay:g}"),
    ]
    return f"optimizer: {', '.join(parts)}"


def _balance(stage: Stage) -> list[str]:
    """Return the line on ranks that wait for each other, where samples are dealt to them by cost."""
    expected = stage.waiting()
    if expected is None:
        return []
    plain, dealt = expected
    return [f"balance: ranks wait for the slowest for {dealt:.1%} of the time, by estimate; {plain:.1%} if not dealt"]


def _content(mixture: Mixture, seq_length: int) -> str:
    counts, packs = mixture.counts, sum(len(source.plan) for source in mixture.sources)
    return (
        f"{packs:,} samples, {counts.positions / (packs * seq_length):.2%} full: {counts.conversations:,} "
        f"conversations, {counts.positions:,} positions, {counts.trained_tokens:,} of them trained"
        f"{f'; {counts.gaps:,} positions of padding between them' if counts.gaps else ''}"
    )


def _left_out(counts: Counts, seq_length: int) -> str:
    limit = f"{seq_length + 1:,} tokens"
    notes = [
        f"{counts.cut:,} cut at {limit}" if counts.cut else "",
        f"{counts.overlong:,} longer than {limit} dropped" if counts.overlong else "",
        f"{counts.untrained:,} without a trained token left out" if counts.untrained else "",
    ]
    return "".join(f"; {note}" for note in notes if note)
