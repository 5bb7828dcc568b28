"""`report`: a finished directory as one page of HTML, to be looked at, kept beside a model, and sent to somebody.

    manifest, statistics, losses ──▶ findings ┐
    twenty conversations ──excerpt────────────┴─▶ Report ──formats.pages──▶ FILE.html

Every value is bounded here, so that the page is within `pages.page.LIMIT` bytes whatever the directory holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.decoding import Decoder
from sft_shards.formats.errors import DataError
from sft_shards.formats.pages.chart import Chart
from sft_shards.formats.pages.excerpt import Piece, excerpt
from sft_shards.formats.pages.page import clip, render
from sft_shards.formats.shards import Manifest, ShardDirectory
from sft_shards.formats.shards.packing import shuffled
from sft_shards.formats.shards.rows import Origins
from sft_shards.formats.shards.selection import all_targets
from sft_shards.formats.terminal import printable_text
from sft_shards.preprocess.directories.findings import Finding, explained, findings, last_trained, unstopped
from sft_shards.preprocess.directories.statistics import SEQ_LENGTHS, Distribution, Fit, SplitStatistics, statistics
from sft_shards.preprocess.tasks.losses import Loss, by_source, read_losses

SHOWN = 20
"""Conversations that are shown."""
EXTREMES = 2
"""Of these, so many are the longest ones, the shortest ones and those with the smallest trained share."""
DRAWN = "drawn at random"
SOURCES, REASONS, EXAMPLES = 60, 45, 3
"""Rows of the tables of sources and reasons, and examples of each reason."""
TEXT = 12_000
"""Characters of the configuration and of the template, each."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A conversation on the page."""

    row: int
    why: str
    """Why it is shown."""
    source: str
    record: int
    tokens: int
    trained: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """A line of the table of sources."""

    path: str
    format: str
    read: int
    lost: int
    sequences: int
    tokens: int
    share: float
    trained_share: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class ReasonRow:
    """A line of the table of reasons."""

    reason: str
    count: int
    meaning: str
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page shows."""

    directory: str
    manifest: Manifest
    split: SplitStatistics
    """The one that is trained on: "train", or the first there is."""
    splits: tuple[SplitStatistics, ...]
    findings: tuple[Finding, ...]
    sources: tuple[SourceRow, ...]
    more_sources: int
    reasons: tuple[ReasonRow, ...]
    charts: tuple[Chart, ...]
    fits: tuple[Fit, ...]
    shown: tuple[Shown, ...]
    provenance: tuple[tuple[str, str], ...]
    configuration: str
    template: str


def report(directory: Path, *, seq_lengths: Sequence[int] = SEQ_LENGTHS) -> str:
    """Return the page of a directory.

    Args:
        seq_lengths: for each of which packing is tried.

    Raises:
        DataError: it is not a complete shard directory, or a file is damaged.
    """
    shards = ShardDirectory(directory)
    manifest = shards.manifest
    if not manifest.splits:
        raise DataError(f"{directory}: has no sequences; see its rejects.jsonl")
    split = shards.split(next(iter(manifest.splits)))
    targets = all_targets(split)
    numbers = statistics(
        directory,
        seq_lengths=seq_lengths,
        targets=lambda other: targets if other.name == split.name else all_targets(other),
    )
    train = numbers.splits[0]
    lengths, trained, last = split.lengths(), targets.count, last_trained(split)
    losses = read_losses(directory)
    decoder, origins = Decoder(shards), Origins(directory, split)
    stops = [*decoder.ids(manifest.template.stop), manifest.tokenizer.eos_id]
    found = findings(manifest, train, losses, lengths=lengths, trained=trained, last=last, stops=stops)
    sources = _sources(manifest, train, losses)
    page = Report(
        directory=clip(directory),
        manifest=manifest,
        split=train,
        splits=numbers.splits,
        findings=found,
        sources=tuple(sources[:SOURCES]),
        more_sources=max(0, len(sources) - SOURCES),
        reasons=_reasons(manifest, losses),
        charts=(_lengths(train.lengths), _shares(train.trained_shares)),
        fits=train.fits,
        shown=tuple(
            _one(origins, row, why, decoder)
            for row, why in _chosen(lengths, trained, np.flatnonzero(unstopped(last, stops))).items()
        ),
        provenance=_provenance(manifest),
        configuration=_bounded(json.dumps(manifest.config, indent=2, ensure_ascii=False)),
        template=_bounded(manifest.template.source or ""),
    )
    return render("report.html", title=clip(f"{directory.name} – shard directory"), report=page)


def _sources(manifest: Manifest, split: SplitStatistics, losses: Sequence[Loss]) -> list[SourceRow]:
    lost = by_source(losses)
    kept = {source.path: source for source in split.sources}
    rows = []
    for source in manifest.sources:
        found = kept.get(source.path)
        rows.append(
            SourceRow(
                path=clip(source.path),
                format=clip(source.format, 40),
                read=source.records,
                lost=sum(loss.records for loss in lost.get(source.path, ())),
                sequences=found.sequences if found else 0,
                tokens=found.tokens if found else 0,
                share=found.share if found else 0.0,
                trained_share=found.trained_share if found else 0.0,
                weight=float(source.weight),
            )
        )
    return sorted(rows, key=lambda row: (-row.tokens, -row.lost))


def _reasons(manifest: Manifest, losses: Sequence[Loss]) -> tuple[ReasonRow, ...]:
    examples: dict[str, list[str]] = {}
    for loss in losses:
        known = examples.setdefault(loss.reason, [])
        if len(known) < EXAMPLES:
            known.append(f"{clip(loss.source, 120)}, record {loss.first:,}: {clip(loss.detail)}")
    counts = sorted(manifest.counts.rejected.items(), key=lambda item: -item[1])
    return tuple(
        ReasonRow(
            reason=clip(reason, 60),
            count=count,
            meaning=explained(reason),
            examples=tuple(examples.get(reason, ())),
        )
        for reason, count in counts[:REASONS]
    )


def _lengths(found: Distribution) -> Chart:
    summary = (
        f"Half of the conversations have at most {found.percentiles[50]:,} tokens, 95% at most "
        f"{found.percentiles[95]:,}; the longest has {found.largest:,}."
    )
    words = [f"{bound:,}" for bound in found.bounds]
    return Chart.of(found.bins, words, title="Length of conversations", unit="tokens", summary=summary)


def _shares(found: Distribution) -> Chart:
    summary = (
        f"In half of the conversations, at most {found.percentiles[50]}% of the tokens carry loss; in one in twenty, "
        f"at most {found.percentiles[5]}%."
    )
    words = [f"{bound}%" for bound in found.bounds]
    return Chart.of(found.bins, words, title="Trained share of conversations", unit="of the tokens", summary=summary)


def _chosen(lengths: NDArray[np.int32], trained: NDArray[np.uint32], endless: NDArray[np.int64]) -> dict[int, str]:
    """Choose rows, and say why: extremes, and others drawn from the whole split by a fixed seed, which come first."""
    order = np.argsort(lengths, kind="stable")
    shares = np.argsort(trained / lengths, kind="stable")
    chosen: dict[int, str] = {}
    for why, rows in (
        ("longest", order[::-1][:EXTREMES]),
        ("shortest", order[:EXTREMES]),
        ("smallest trained share", shares[:EXTREMES]),
        ("ends without a stop token", endless[:EXTREMES]),
        (DRAWN, shuffled(len(lengths), "report")[:SHOWN]),
    ):
        for row in rows.tolist():
            if len(chosen) < SHOWN:
                chosen.setdefault(row, why)
    return {row: chosen[row] for row in sorted(chosen, key=lambda row: chosen[row] != DRAWN)}


def _one(origins: Origins, row: int, why: str, decoder: Decoder) -> Shown:
    origin, (ids, loss_mask) = origins[row], origins.split[row]
    return Shown(
        row=row,
        why=why,
        source=clip(origin.source, 120),
        record=origin.record,
        tokens=len(ids),
        trained=int(loss_mask.sum()),
        pieces=excerpt(ids, loss_mask, decoder),
    )


def _provenance(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    tokenizer, template = manifest.tokenizer, manifest.template
    given = f", with {clip(json.dumps(template.arguments))}" if template.arguments else ""
    lines = [
        ("Tokenizer", f"{clip(tokenizer.name)}, {tokenizer.vocab_size:,} ids, stored as {clip(tokenizer.dtype, 20)}"),
        ("Hash of its vocabulary", clip(tokenizer.vocab_sha256, 80)),
        ("Template", clip(template.name) + given),
        ("Hash of the template", clip(template.sha256, 80)),
        ("Stop tokens", clip(" ".join(template.stop)) or "none"),
        ("Token ids by", clip(manifest.notes.engine) or "not said"),
        ("Versions", clip(", ".join(f"{name} {version}" for name, version in manifest.versions.items()), 600)),
    ]
    return tuple(lines)


def _bounded(text: str) -> str:
    shown = printable_text(text[: TEXT + 1])
    return shown if len(shown) <= TEXT else f"{shown[:TEXT]}\n…"
