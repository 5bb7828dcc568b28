"""What a job lost: per source and reason how many records were left out, with the first of them as an example.

`rejects.jsonl` names every record; this sums it up, for the summary of a job, for the error of one that lost too much,
and for the commands that look at a finished directory. The detail of the first one often holds the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sft_shards.formats.errors import DataError
from sft_shards.preprocess.tasks.writer import RejectLine, read_rejects


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
