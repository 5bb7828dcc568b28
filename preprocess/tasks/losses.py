"""What a job lost: per source and reason how many records were left out, and whether that is too much.

`rejects.jsonl` names every record; this sums it up, for the summary of a job, for the error of one that lost too much,
and for the commands that look at a finished directory. The detail of the first one often holds the remedy.

Where no `--max-rejects` is given, a job fails that loses more than half of a source: a column or a role is misread
then, and that is better found now than after a week of training. Small losses are let pass, and so is what an option of
the call leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.formats.reasons import REASONS
from sft_shards.formats.shards import Counts
from sft_shards.formats.shards.manifest import REJECTS
from sft_shards.preprocess.pipeline.containment import INTERNAL_ERROR
from sft_shards.preprocess.tasks.writer import RejectLine, read_rejects

SHARE, RECORDS = 0.5, 100
"""Without `--max-rejects`, no source may lose more than this share, if that is also more than so many records."""
ASKED_FOR = ("duplicate", "overlong")
"""Reasons that only an option of the call brings, which do not count without `--max-rejects`."""
LOUD = 0.1
"""Share of a source above which what it lost is worth a warning."""
DETAIL = 240
"""Characters of a detail that are shown."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Records of one source that were left out for one reason."""

    source: str
    reason: str
    records: int
    first: int
    """Number of the first of them in the source."""
    detail: str
    """What was seen in the first of them."""


def read_losses(directory: Path) -> tuple[Loss, ...]:
    """Sum up the `rejects.jsonl` of a directory, by source in the order of the file, then the most frequent first.

    Raises:
        DataError: there is none, or a line of it is damaged.
    """
    counts: dict[str, dict[str, int]] = {}
    firsts: dict[tuple[str, str], RejectLine] = {}
    try:
        for line in read_rejects(directory):
            reasons = counts.setdefault(line.source, {})
            reasons[line.reason] = reasons.get(line.reason, 0) + 1
            firsts.setdefault((line.source, line.reason), line)
    except FileNotFoundError:
        raise DataError(f"{directory}: no rejects.jsonl; see 'sft-preprocess verify'") from None
    return tuple(
        Loss(
            source=source,
            reason=reason,
            records=records,
            first=firsts[source, reason].record,
            detail=firsts[source, reason].detail,
        )
        for source, reasons in counts.items()
        for reason, records in sorted(reasons.items(), key=lambda item: -item[1])
    )


def by_source(losses: Iterable[Loss]) -> dict[str, list[Loss]]:
    """Return the losses of each source, in their order."""
    found: dict[str, list[Loss]] = {}
    for loss in losses:
        found.setdefault(loss.source, []).append(loss)
    return found


def shortened(detail: str) -> str:
    """Return a detail in one line of at most `DETAIL` characters."""
    line = " ".join(detail.split())
    return line if len(line) <= DETAIL else line[: DETAIL - 1] + "…"


def check_losses(counts: Counts, sources: Mapping[str, int], limit: str | None, directory: Path) -> None:
    """Check that a job did not lose more records than allowed, and not all of them.

    Args:
        sources: records read of each source, by path.
        limit: the value of `--max-rejects`: a number, or a percentage such as "1%"; None for `SHARE` and `RECORDS`.
        directory: where its `rejects.jsonl` lies.

    Raises:
        DataError: it lost too many; the message quotes the first record of the most frequent reason.
    """
    if counts.written == 0:
        raise DataError(
            f"{directory}: all {counts.read:,} records were left out ({_by_reason(counts.rejected)})"
            f"{_first(read_losses(directory))}; see {directory}/{REJECTS}"
        )
    if limit is not None:
        if not check_limit(limit, counts):
            raise DataError(
                f"{directory}: {sum(counts.rejected.values()):,} of {counts.read:,} records were left out "
                f"({_by_reason(counts.rejected)}), more than --max-rejects {limit}{_first(read_losses(directory))}; "
                f"see {directory}/{REJECTS}; correct the call, or allow more: finished tasks are kept"
            )
        return
    if sum(count for reason, count in counts.rejected.items() if reason not in ASKED_FOR) <= RECORDS:
        return
    losses = by_source(loss for loss in read_losses(directory) if loss.reason not in ASKED_FOR)
    for source, read in sources.items():
        lost = losses.get(source, [])
        records = sum(loss.records for loss in lost)
        if records > RECORDS and records > SHARE * read:
            reasons = {loss.reason: loss.records for loss in lost}
            raise DataError(
                f"{directory}: {records:,} of {read:,} records of {source} were left out ({_by_reason(reasons)}), "
                f"more than half{_first(lost)}; see {directory}/{REJECTS}; correct the call, or keep the rest with "
                "--max-rejects 100%: finished tasks are kept"
            )


def check_limit(limit: str, counts: Counts) -> bool:
    """Whether the records left out are no more than `--max-rejects` allows.

    >>> check_limit("1%", Counts(read=100, written=99, rejected={"overlong": 1}))
    True
    """
    rejected = sum(counts.rejected.values())
    if limit.endswith("%"):
        return rejected * 100 <= float(limit[:-1]) * counts.read
    return rejected <= int(limit)


def _by_reason(rejected: Mapping[str, int]) -> str:
    words = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items()) or "there were none"
    bug = f"; {INTERNAL_ERROR} is a bug in sft-shards: report it" if INTERNAL_ERROR in rejected else ""
    return words + bug


def _first(losses: Sequence[Loss]) -> str:
    """Quote the first record of the most frequent reason, and what would help."""
    if not losses:
        return ""
    most = max(losses, key=lambda loss: loss.records)
    known = REASONS.get(most.reason)
    remedy = f" ({known.remedy})" if known and "--" not in most.detail else ""
    return f"; record {most.first} of {most.source}: {shortened(most.detail)}{remedy}"
