"""The lines printed before training: the data, what was left out, the layout and the schedule."""

from __future__ import annotations

from fractions import Fraction

from sft_shards.trainer.data.mixture import Mixture
from sft_shards.trainer.data.pack_plan import Counts
from sft_shards.trainer.stage import Setup, Stage


def lines(setup: Setup, stage: Stage, *, vocabulary: int, padded: int, eval_iters: int, steps: int) -> list[str]:
    """Return the summary, line by line.

    Args:
        vocabulary: ids that the model must know.
        padded: rows of the embedding.
        eval_iters: steps of one evaluation; 0: there is none.
        steps: optimizer steps of the whole run.
    """
    layout, args, job = setup.layout, setup.args, setup.job
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
    where = "CPU (standing in for a GPU)" if job.device == "cpu" else "GPU"
    shown = [f"shards: {', '.join(job.shards)}"]
    if len(stage.train.sources) > 1:
        for source in stage.train.sources:
            share = f"{len(source.plan):,} samples x {float(source.weight):g} an epoch"
            shown.append(f"  {source.name}: {source.plan.counts.conversations:,} conversations in {share}")
    train = _content(stage.train, layout.seq_length)
    return [
        *shown,
        f"train: {train}{_left_out(stage.train.counts, layout.seq_length)}",
        f"isolation: {setup.isolation.kind} ({setup.isolation.reason})",
        evaluation,
        f"model vocabulary: {padded:,} rows for {vocabulary:,} ids",
        f"{where}: {layout.world} process(es), {layout}; {layout.seq_length:,} positions, "
        f"micro-batch {layout.micro_batch}, global batch {layout.global_batch}",
        *_balance(stage),
        f"{steps:,} steps of {layout.global_batch} = {samples:,} samples = {samples / epoch:.2f} epochs of {epoch:,}",
    ]


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
