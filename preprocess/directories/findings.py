"""What stands out in a finished directory: the warnings and notes of its report.

A finding is something that people have regretted after a week of training: most of a file lost, one source that is
nearly everything, answers that never stop, answers that say nothing, conversations cut at the limit, reasoning that the
template dropped. The thresholds are rules of thumb; what is counted stands in the text, so that a reader can judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.reasons import NOTES, REASONS
from sft_shards.formats.shards import Manifest, Split
from sft_shards.formats.shards.selection import mask_blocks
from sft_shards.preprocess.directories.statistics import SplitStatistics
from sft_shards.preprocess.tasks.losses import LOUD, Loss, by_source

MOST = 0.5
"""Share of a source's records that are called most of them; from `LOUD` on, what it lost is told."""
DOMINATES = 0.8
"""Share of the tokens that one of several sources has."""
UNSTOPPED = 0.01
"""Share of the conversations whose last answer ends without a stop token."""
FEW, SHORT = 4, 0.02
"""Trained tokens that are suspiciously few, stop token included, and the share of conversations that have so few."""
NEAR, CROWDED = 0.95, 0.05
"""Share of --max-length that is near it, and the share of conversations that are."""
LISTED = 10
"""Findings of one kind that are listed one by one."""
SERIOUS = ("reasoning_dropped", "tools_ignored", "normalized_or_lossy")
"""Notes of a manifest that are warnings."""
QUIET = ("straddling_tokens", "unrolled_dropped", "unrolled_sequences", "unrolled_tokens", "typed_control_tokens")
"""Notes of a manifest that are no findings."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that stands out."""

    warning: bool
    """Whether it is a warning, rather than a note."""
    title: str
    """What was counted, in one sentence."""
    detail: str
    """What it may mean, and what to do."""


def last_trained(split: Split) -> NDArray[np.int64]:
    """Return int64[S]: of each conversation the last token that carries loss, -1 where none does.

    Of the tokens 7 8 9 with the mask 0 1 0 it is 8.
    """
    lengths = split.lengths()
    places = np.full(len(split), -1, dtype=np.int64)
    for mask, rows, starts in mask_blocks(split, np.arange(len(split)), lengths):
        ones = np.concatenate([[-1], np.flatnonzero(mask)])
        last = ones[np.searchsorted(ones, starts + lengths[rows]) - 1]
        places[rows] = np.where(last >= starts, last - starts, -1)
    found = []
    for shard in split.shards:
        own, places = np.split(places, [len(shard.tokens)])
        ids = shard.tokens.items[shard.tokens.starts + np.maximum(own, 0)].astype(np.int64)
        found.append(np.where(own >= 0, ids, -1))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def explained(reason: str) -> str:
    """Give meaning and remedy of a reason as a sentence each; "" for one of another package."""
    known = REASONS.get(reason)
    return f"{known.meaning[0].upper()}{known.meaning[1:]}. Remedy: {known.remedy}." if known else ""


def unstopped(last: NDArray[np.int64], stops: Sequence[int]) -> NDArray[np.bool_]:
    """Return bool[S]: which conversations train something, and end it without a stop token.

    Args:
        last: int64[S], what `last_trained` found.
        stops: ids that end an answer.
    """
    return (last >= 0) & ~np.isin(last, list(stops))


def findings(
    manifest: Manifest,
    statistics: SplitStatistics,
    losses: Sequence[Loss],
    *,
    lengths: NDArray[np.int32],
    trained: NDArray[np.uint32],
    last: NDArray[np.int64],
    stops: Sequence[int],
) -> tuple[Finding, ...]:
    """List what stands out, warnings first.

    Args:
        statistics: of the split that is trained on.
        lengths: int32[S], tokens of each of its conversations.
        trained: uint32[S], trained tokens of each.
        last: int64[S], what `last_trained` found.
        stops: ids that end an answer.
    """
    found = [
        *_lost(manifest, losses),
        *_bugs(manifest),
        *_dominating(statistics),
        *_unstopped(manifest, last, stops),
        *_short(trained),
        *_crowded(manifest, lengths),
        *_noted(manifest),
        *_unvalidated(manifest),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.warning))


def _lost(manifest: Manifest, losses: Sequence[Loss]) -> Iterator[Finding]:
    lost = by_source(loss for loss in losses if loss.reason != "duplicate")  # it was asked for
    totals = {path: sum(loss.records for loss in own) for path, own in lost.items()}
    shares = [
        (totals[source.path] / source.records, source)
        for source in manifest.sources
        if source.path in lost and source.records
    ]
    worst = sorted((one for one in shares if one[0] >= LOUD), key=lambda one: -one[0])
    for share, source in worst[:LISTED]:
        most, total = max(lost[source.path], key=lambda loss: loss.records), totals[source.path]
        reason, count = most.reason, most.records
        whose = "All" if count == total else f"{count:,}"
        word = "lost most of its records" if share >= MOST else f"lost {share:.0%} of its records"
        yield Finding(
            warning=True,
            title=f"{source.path} {word}: {total:,} of {source.records:,}",
            detail=f"{whose} of them: {reason}. {explained(reason)}",
        )
    if len(worst) > LISTED:
        yield Finding(
            warning=True,
            title=f"{len(worst) - LISTED:,} more files lost {LOUD:.0%} of their records or more",
            detail="The table of sources has them.",
        )


def _bugs(manifest: Manifest) -> Iterator[Finding]:
    for reason in ("internal_error", "paths_differ"):
        if count := manifest.counts.rejected.get(reason):
            yield Finding(warning=True, title=f"{count:,} records: {reason}", detail=explained(reason))


def _dominating(statistics: SplitStatistics) -> Iterator[Finding]:
    if len(statistics.sources) < 2:
        return
    shown = {source.path: source.weight * source.tokens for source in statistics.sources}
    largest = max(shown, key=lambda path: shown[path])
    share = shown[largest] / max(1, sum(shown.values()))
    if share >= DOMINATES:
        yield Finding(
            warning=True,
            title=f"{largest} has {share:.0%} of the tokens that are shown in training",
            detail="The other sources hardly count. If that is not meant, give weights: below sources: in the YAML of "
            "the job, or to directories, by sft-train --shards DIR:WEIGHT.",
        )


def _unstopped(manifest: Manifest, last: NDArray[np.int64], stops: Sequence[int]) -> Iterator[Finding]:
    if manifest.config.get("train_on") == "everything" or not stops:
        return
    count = int(unstopped(last, stops).sum())
    if count and count >= UNSTOPPED * int((last >= 0).sum()):
        cut = manifest.notes.counts.get("cut", 0)
        yield Finding(
            warning=True,
            title=f"{count:,} conversations end their last trained part without a stop token",
            detail="A model learns to stop from these tokens. "
            + (f"{cut:,} conversations were cut to --max-length. " if cut else "")
            + "Look at one below; choose another --template, or --overlong drop.",
        )


def _short(trained: NDArray[np.uint32]) -> Iterator[Finding]:
    count = int((trained <= FEW).sum())
    if count and count >= SHORT * len(trained):
        yield Finding(
            warning=True,
            title=f"{count:,} conversations ({count / len(trained):.1%}) train at most {FEW} tokens",
            detail="Answers of a word or none. That is right for labels and choices, and wrong where a column was "
            "mixed up: look at the shortest ones below.",
        )


def _crowded(manifest: Manifest, lengths: NDArray[np.int32]) -> Iterator[Finding]:
    limit = manifest.config.get("max_length")
    if not isinstance(limit, int) or not len(lengths):
        return
    count = int((lengths >= NEAR * limit).sum())
    if count >= CROWDED * len(lengths):
        yield Finding(
            warning=True,
            title=f"{count:,} conversations ({count / len(lengths):.1%}) are near --max-length {limit:,}",
            detail="Many records probably go on behind the limit. Raise it, or leave it out: the trainer packs for any "
            "sequence length.",
        )


def _noted(manifest: Manifest) -> Iterator[Finding]:
    for name, count in manifest.notes.counts.items():
        if count and name in NOTES and name not in QUIET:
            yield Finding(warning=name in SERIOUS, title=f"{count:,} {NOTES[name]}", detail=_DETAILS.get(name, ""))


_DETAILS = {
    "reasoning_dropped": "The template does not render their reasoning, so that nothing trains it. Choose a template "
    "that does, if it is meant to be learnt.",
    "tools_ignored": "The model reads calls without the tools that they call. Choose a template that renders tools.",
    "normalized_or_lossy": "The tokenizer rewrites their text: the model learns another spelling than the data has.",
    "cut": "Their end is not there, and with it often the stop token.",
}


def _unvalidated(manifest: Manifest) -> Iterator[Finding]:
    if "valid" not in manifest.splits:
        yield Finding(
            warning=False,
            title="There is no validation split",
            detail="Training will show no validation loss; --valid-fraction 0.01 sets one record in a hundred aside.",
        )
