"""The summary of a job: what went in, what came of it, what was lost and why, and what would help.

`run` and `finalize` end with it. A source that lost more than a tenth is a warning that cannot be overlooked: a wrong
column or role is found here, or after a week of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from sft_shards.formats.reasons import NOTES, REASONS
from sft_shards.formats.shards import Manifest
from sft_shards.formats.terminal import UNLIMITED, printable
from sft_shards.preprocess.directories.tables import Column, folded, table
from sft_shards.preprocess.progress import clock
from sft_shards.preprocess.tasks.losses import LOUD, Loss, by_source, read_losses, shortened

SHOWN = 20
"""Sources that are listed at most, those that lost most."""
REASONS_SHOWN = 12
"""Reasons that are explained at most, the most frequent ones."""


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """What became of one source."""

    path: str
    format: str
    read: int
    kept: int
    losses: tuple[Loss, ...]
    """By reason, the most frequent first."""

    @property
    def lost(self) -> int:
        """Records that were left out."""
        return self.read - self.kept

    @property
    def is_loud(self) -> bool:
        """Whether it lost more than `LOUD`; duplicates are asked for, and do not count."""
        lost = sum(loss.records for loss in self.losses if loss.reason != "duplicate")
        return lost > LOUD * self.read


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of a job."""

    output: Path
    manifest: Manifest
    sources: tuple[SourceSummary, ...]
    """In the order of the inputs."""
    seconds: float | None
    """What the whole job took, from the call on; None where it was not made in one go."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must not be overlooked, a line each."""
        return tuple(
            f"{one.lost / one.read:.1%} of {one.path} was left out ({one.lost:,} of {one.read:,} records); "
            f"look at them: sft-preprocess rejects {self.output}"
            for one in self.sources
            if one.is_loud
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        raw = self.manifest.as_dict()
        for split in raw["splits"].values():
            split["shards"] = len(split["shards"])
        return {
            "output": str(self.output),
            **{key: raw[key] for key in ("counts", "splits", "notes")},
            "template": self.manifest.template.name,
            "sources": [
                {
                    "path": one.path,
                    "format": one.format,
                    "read": one.read,
                    "kept": one.kept,
                    "left_out": [_explained(loss) for loss in one.losses],
                }
                for one in self.sources
            ],
            "warnings": list(self.warnings),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
        }


def summarize(output: Path, manifest: Manifest, *, seconds: float | None = None) -> Summary:
    """Sum up a finished directory.

    Args:
        seconds: what the job took, where it was made in one go.

    Raises:
        DataError: its `rejects.jsonl` is damaged.
    """
    losses = by_source(read_losses(output) if manifest.counts.rejected else ())
    sources = []
    for source in manifest.sources:
        own = tuple(losses.get(source.path, ()))
        kept = source.records - sum(loss.records for loss in own)
        sources.append(
            SourceSummary(path=source.path, format=source.format, read=source.records, kept=kept, losses=own)
        )
    return Summary(output=output, manifest=manifest, sources=tuple(sources), seconds=seconds)


def lines(summary: Summary, *, colour: bool, width: int = UNLIMITED) -> Iterator[str]:
    """Give a summary in lines for people.

    Args:
        width: columns of the terminal.
    """
    yield from _sources(summary, colour=colour, width=width)
    for line in _plain(summary):
        yield from folded(printable(line), width)
    for warning in summary.warnings:
        for line in folded(printable(f"WARNING: {warning}"), width):
            yield click.style(line, fg="red", bold=True) if colour else line
    if summary.seconds is not None:
        yield _speed(summary)
    yield printable(
        f"wrote {summary.output} with template {summary.manifest.template.name}; "
        f"look at it: sft-preprocess inspect {summary.output}"
    )


def _plain(summary: Summary) -> Iterator[str]:
    """Give the lines between the table and the warnings: losses, notes, splits."""
    reasons: dict[str, list[Loss]] = {}
    for loss in (loss for one in summary.sources for loss in one.losses):
        reasons.setdefault(loss.reason, []).append(loss)
    counts = {reason: sum(loss.records for loss in found) for reason, found in reasons.items()}
    shown = sorted(reasons, key=lambda reason: -counts[reason])
    for reason in shown[:REASONS_SHOWN]:
        known, most = REASONS.get(reason), max(reasons[reason], key=lambda loss: loss.records)
        places = f" of {len(reasons[reason])} sources" if len(reasons[reason]) > 1 else ""
        yield f"left out: {counts[reason]:,} {reason}{places}" + (f": {known.meaning}" if known else "")
        yield f"  record {most.first} of {most.source}: {shortened(most.detail)}"
        if known:
            yield f"  remedy: {known.remedy}"
    if len(shown) > REASONS_SHOWN:
        yield f"and {len(shown) - REASONS_SHOWN} more reasons: sft-preprocess rejects {summary.output}"
    for name, count in summary.manifest.notes.counts.items():
        yield f"noted: {count:,} {NOTES.get(name, name)}"
    for name, split in summary.manifest.splits.items():
        yield (
            f"{name}: {split.sequences:,} sequences, {split.tokens:,} tokens, {split.trained_tokens:,} carry loss "
            f"({split.trained_tokens / split.tokens:.1%}), longest {split.longest:,}, {len(split.shards)} shard(s)"
        )


def _sources(summary: Summary, *, colour: bool, width: int) -> Iterator[str]:
    shown = summary.sources
    if len(shown) > SHOWN:
        shown = tuple(sorted(shown, key=lambda one: one.kept - one.read)[:SHOWN])
    columns = [
        Column(title="source", gives_way=True),
        Column(title="format"),
        *(Column(title=title, right=True) for title in ("read", "kept", "left out", "share")),
    ]
    rows = [
        (
            one.path,
            one.format,
            f"{one.read:,}",
            f"{one.kept:,}",
            f"{one.lost:,}",
            f"{one.lost / one.read if one.read else 0:.1%}",
        )
        for one in shown
    ]
    head, *body = table(columns, rows, width=width)
    yield click.style(head, bold=True) if colour else head
    for one, line in zip(shown, body, strict=True):
        yield click.style(line, fg="red", bold=True) if colour and one.is_loud else line
    if len(shown) < len(summary.sources):
        rest = [one for one in summary.sources if one not in shown]
        read, lost = sum(one.read for one in rest), sum(one.lost for one in rest)
        yield f"and {len(rest):,} more sources: {read:,} read, {lost:,} left out"


def _speed(summary: Summary) -> str:
    seconds = max(summary.seconds or 0.0, 1e-9)
    tokens = sum(split.tokens for split in summary.manifest.splits.values())
    records = summary.manifest.counts.read
    return f"took {clock(seconds)}: {records / seconds:,.0f} records/s, {tokens / seconds:,.0f} tokens/s"


def _explained(loss: Loss) -> Mapping[str, object]:
    known = REASONS.get(loss.reason)
    more = {"meaning": known.meaning, "remedy": known.remedy} if known else {}
    return {name: value for name, value in asdict(loss).items() if name != "source"} | more
