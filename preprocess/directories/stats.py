"""What `stats` prints: sources, percentiles, histograms, and what each sequence length does, as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from sft_shards.formats.terminal import UNLIMITED
from sft_shards.preprocess.directories.statistics import Distribution, SplitStatistics, Statistics
from sft_shards.preprocess.directories.tables import Column, table

BAR = 40
"""Characters of the longest bar of a histogram, at most."""
SHOWN = 30
"""Sources that are listed at most, those with the most tokens."""


def as_dict(found: Statistics, *, global_batch: int) -> dict[str, Any]:
    """Give the object that `--json` prints.

    Args:
        global_batch: samples of a step.
    """
    raw = asdict(found)
    for split, own in zip(found.splits, raw["splits"], strict=True):
        own["trained_share"] = split.trained_share
        for fit, its in zip(split.fits, own["fits"], strict=True):
            its |= {"global_batch": global_batch, "steps": fit.steps(global_batch)}
    return raw


def lines(found: Statistics, *, global_batch: int, colour: bool, width: int = UNLIMITED) -> Iterator[str]:
    """Give statistics in lines for people.

    Args:
        global_batch: samples of a step.
        width: columns of the terminal.
    """
    yield f"{found.read:,} records read, {found.read - found.written:,} left out"
    for split in found.splits:
        yield ""
        head = (
            f"{split.name}: {split.sequences:,} sequences, {split.tokens:,} tokens, {split.trained_tokens:,} carry "
            f"loss ({split.trained_share:.1%})"
        )
        yield click.style(head, bold=True) if colour else head
        yield from _sources(split, width)
        yield ""
        yield from _percentiles(split, width)
        yield ""
        yield "tokens of a sequence"
        yield from _histogram(split.lengths, width, unit="")
        yield ""
        yield "share of a sequence that carries loss"
        yield from _histogram(split.trained_shares, width, unit="%")
        yield ""
        yield from _fits(split, global_batch, width)


def _sources(split: SplitStatistics, width: int) -> Iterator[str]:
    columns = [
        Column(title="source", gives_way=True),
        *(Column(title=title, right=True) for title in ("sequences", "tokens", "share", "trained")),
    ]
    shown = sorted(split.sources, key=lambda one: -one.tokens)[:SHOWN]
    weighted = any(one.weight != 1 for one in split.sources)
    if weighted:
        columns.append(Column(title="weight", right=True))
    rows = [
        (
            *(one.path, f"{one.sequences:,}", f"{one.tokens:,}", f"{one.share:.1%}", f"{one.trained_share:.1%}"),
            *([f"{one.weight:g}"] if weighted else []),
        )
        for one in shown
    ]
    yield from table(columns, rows, width=width)
    if len(shown) < len(split.sources):
        yield f"and {len(split.sources) - len(shown):,} more sources"


def _percentiles(split: SplitStatistics, width: int) -> Iterator[str]:
    percents = list(split.lengths.percentiles)
    columns = [
        Column(title="percentile"),
        *(Column(title=title, right=True) for title in ("least", *(f"{one}%" for one in percents), "most", "mean")),
    ]
    rows = []
    for name, one in (("tokens", split.lengths), ("carry loss, %", split.trained_shares)):
        values = [one.smallest, *one.percentiles.values(), one.largest]
        rows.append((name, *(f"{value:,}" for value in values), f"{one.mean:,.0f}"))
    yield from table(columns, rows, width=width)


def _histogram(found: Distribution, width: int, *, unit: str) -> Iterator[str]:
    """Give a line for each bin: its range, its sequences and a bar; empty bins at both ends are left out."""
    filled = [at for at, count in enumerate(found.bins) if count]
    if not filled:
        return
    most = max(found.bins)
    rows = []
    for at in range(filled[0], filled[-1] + 1):
        low, high = found.bounds[at], found.bounds[at + 1]
        last = high if unit and at == len(found.bins) - 1 else high - 1
        rows.append((f"{low:,} to {last:,}{unit}", f"{found.bins[at]:,}", found.bins[at]))
    left, middle = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    room = max(min(BAR, width - 1 - left - middle - 4), 1)
    for name, count, number in rows:
        bar = "█" * (round(number / most * room) or (1 if number else 0))
        yield f"{name:>{left}}  {count:>{middle}}  {bar}".rstrip()


def _fits(split: SplitStatistics, global_batch: int, width: int) -> Iterator[str]:
    if not split.fits:
        return
    titles = ("seq length", "samples", "fill", "cut", "left out", "loss lost", f"steps at {global_batch:,}")
    columns = [Column(title=title, right=True) for title in titles]
    trained = max(split.trained_tokens, 1)
    rows = [
        (
            f"{fit.seq_length:,}",
            f"{fit.packs:,}",
            f"{fit.fill:.1%}",
            f"{fit.cut:,}",
            f"{fit.dropped + fit.untrained:,}",
            f"{fit.lost_tokens / trained:.2%}",
            f"{fit.steps(global_batch):,}",
        )
        for fit in split.fits
    ]
    yield "packed into samples (an epoch, as sft-train packs)"
    yield from table(columns, rows, width=width)
