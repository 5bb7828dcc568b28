"""The truncate stage: sequences to sequences of at most `--max-length` tokens, with their split.

    TokenizedBatch ──▶ Batch

The batch implementation passes on what fits and has something to learn; the reference implementation cuts sequences or
rejects them, one at a time. The split of a conversation follows from its content alone, so it does not move when data
is added.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.formats.shards import SPLITS
from sft_shards.preprocess.pipeline.batch import Batch, Reject, TokenizedBatch
from sft_shards.preprocess.pipeline.ragged import whole_records

UNROLLED = ("unrolled_sequences", "unrolled_tokens")
"""The notes that tell what unrolling costs."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a job says of lengths and splits."""

    max_length: int | None
    """Tokens; None for any length."""
    overlong: str
    """One of `config.OVERLONG`: what becomes of longer sequences."""
    valid_fraction: float
    test_fraction: float
    """Shares of the conversations that go into these splits."""
    with_digests: bool
    """Whether the writer needs digests, to find duplicates."""


def kept_range(loss_mask: NDArray[np.uint8], max_length: int | None, overlong: str) -> tuple[int, int]:
    """Return which tokens of a sequence are kept, [start, end).

    `drop` leaves the record out; `truncate` cuts behind the last token that fits; `turns` cuts behind the last trained
    span that fits as a whole; `tail` keeps the last tokens; `error` ends the job. However it was cut, a record is left
    out whose only trained token is the first (which nothing predicts) or that has none.

    Of the mask [0, 1, 1, 0, 1], at most four tokens, `truncate` keeps [0, 4), `turns` [0, 3) and `tail` [1, 5).

    Raises:
        RecordError: `overlong`, `no_trained_token`.
        DataError: `error` was asked for.
    """
    length = len(loss_mask)
    start, end = 0, length
    if max_length is not None and length > max_length:
        if overlong == "error":
            raise DataError(
                f"{length} tokens, more than --max-length {max_length}; raise it or choose another --overlong, "
                "and run again with --overwrite"
            )
        if overlong == "drop":
            raise RecordError("overlong", f"{length} tokens, more than {max_length}")
        start, end = (length - max_length, length) if overlong == "tail" else (0, max_length)
        if overlong == "turns":
            ends = np.flatnonzero(np.diff(loss_mask.astype(np.int8), append=0) == -1) + 1
            end = int(max(ends[ends <= max_length], default=0))
    if not loss_mask[start:end][1:].any():
        cut = end - start < length
        raise RecordError(
            "no_trained_token",
            "cut to the length allowed, nothing of the assistant is left" if cut else "nothing carries loss",
        )
    return start, end


class ReferenceTruncation:
    """Cuts or rejects sequences one at a time. A record is rejected where none of its sequences is left."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def truncate(self, tokenized: TokenizedBatch) -> Batch:
        """Cut every sequence to the length allowed, or reject it.

        Raises:
            DataError: `--overlong error` and a sequence is too long; the record is named.
        """
        left_out: list[Reject] = []
        rows, ids, masks = [], [], []
        cut = 0
        for row, record in enumerate(tokenized.records.tolist()):
            sequence, mask = tokenized.sequence(row)
            try:
                first, last = kept_range(mask, self._limits.max_length, self._limits.overlong)
            except RecordError as error:
                left_out.append(Reject.of(record, error.kept()))
                continue
            except DataError as error:
                raise DataError(f"record {record}: {error}") from None
            rows.append(row)
            ids.append(sequence[first:last])
            masks.append(mask[first:last])
            cut += last - first < len(mask)
        kept = np.asarray(rows, dtype=np.int64)
        records = set(tokenized.records[kept].tolist())
        rejects = {reject.record: reject for reject in reversed(left_out) if reject.record not in records}
        notes = count_notes(tokenized, kept)
        notes["cut"] += cut
        notes["unrolled_dropped"] += sum(reject.record in records for reject in left_out)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        notes += count_unrolled(tokenized.records[kept], lengths)
        digests = tokenized.digests[kept] if len(tokenized.digests) else tokenized.digests
        return Batch(
            records=tokenized.records[kept],
            splits=assign_splits(digests, len(kept), self._limits),
            digests=digests if self._limits.with_digests else digests[:0],
            lengths=lengths,
            ids=np.concatenate([np.zeros(0, dtype=np.int32), *ids]),
            loss_mask=np.concatenate([np.zeros(0, dtype=np.uint8), *masks]),
            trained=np.asarray([mask.sum() for mask in masks], dtype=np.int64),
            rejects=sorted([*tokenized.rejects, *rejects.values()], key=lambda reject: reject.record),
            notes=+notes,
            turns=tokenized.turns and tokenized.turns.select(kept),
        )


class BatchTruncation:
    """Passes on the sequences that need no cut, all at once.

    Args:
        reference: cuts or rejects the others.
    """

    def __init__(self, limits: Limits, reference: ReferenceTruncation) -> None:
        self._limits, self._reference = limits, reference
        self.fallbacks = 0

    def truncate(self, tokenized: TokenizedBatch) -> Batch:
        """Cut every sequence to the length allowed, or reject it.

        Raises:
            DataError: `--overlong error` and a sequence is too long; the record is named.
        """
        fits = self._fits(tokenized)
        if fits.all():
            return self._pass_on(tokenized)
        rest = np.flatnonzero(~fits)
        self.fallbacks += len(rest)
        passed = self._pass_on(replace(tokenized.select(np.flatnonzero(fits)), rejects=tokenized.rejects))
        return Batch.merge([passed, self._reference.truncate(tokenized.select(rest))])

    def _fits(self, tokenized: TokenizedBatch) -> NDArray[np.bool_]:
        """Return bool[n]: the sequences that are not too long, and of which some token but the first carries loss."""
        first = tokenized.loss_mask[tokenized.offsets[:-1]]  # no sequence is empty
        fits = np.asarray(tokenized.trained > first)
        if self._limits.max_length is not None:
            fits &= np.diff(tokenized.offsets) <= self._limits.max_length
        return ~whole_records(tokenized.records, ~fits)

    def _pass_on(self, tokenized: TokenizedBatch) -> Batch:
        lengths = np.diff(tokenized.offsets)
        return Batch(
            records=tokenized.records,
            splits=assign_splits(tokenized.digests, len(tokenized), self._limits),
            digests=tokenized.digests if self._limits.with_digests else tokenized.digests[:0],
            lengths=lengths,
            ids=tokenized.ids,
            loss_mask=tokenized.loss_mask,
            trained=tokenized.trained,
            rejects=tokenized.rejects,
            notes=count_notes(tokenized, None) + count_unrolled(tokenized.records, lengths),
            turns=tokenized.turns,
        )


def count_notes(tokenized: TokenizedBatch, rows: NDArray[np.int64] | None) -> Counter[str]:
    """Count what there is to say of some sequences, int64[m]; None for all of them."""
    straddling = tokenized.straddling if rows is None else tokenized.straddling[rows]
    notes: Counter[str] = Counter()
    if tokenized.notes:
        records = np.unique(tokenized.records if rows is None else tokenized.records[rows])
        for names, times in Counter(map(tokenized.notes.get, records.tolist())).items():
            for name in names or ():
                notes[name] += times
    notes["straddling_tokens"] += int(straddling.sum())
    return +notes


def count_unrolled(records: NDArray[np.int64], lengths: NDArray[np.int64]) -> Counter[str]:
    """Count sequences that are not the last of their record, and their tokens.

    Records [5, 5, 7] with 10, 20 and 30 tokens have one such sequence, of 10 tokens.

    Args:
        records: int64[n]; the sequences of one record follow each other.
        lengths: int64[n], in tokens.
    """
    earlier = np.diff(records, append=-1) == 0
    counts = int(earlier.sum()), int(lengths[earlier].sum())
    return +Counter(dict(zip(UNROLLED, counts, strict=True)))


def assign_splits(digests: NDArray[np.uint8], count: int, limits: Limits) -> NDArray[np.uint8]:
    """Return u8[count]: the split of each conversation, as an index in `SPLITS`.

    The first eight bytes of a digest, as a number in [0, 1), decide: with 5% each, 0.03 is valid, 0.07 test and 0.5
    train.

    Args:
        digests: u8[count, 16]; u8[0, 16] will do where there is one split only.
    """
    valid, test = limits.valid_fraction, limits.test_fraction
    train = SPLITS.index("train")
    if not valid and not test:
        return np.full(count, train, dtype=np.uint8)
    share = digests[:, :8].copy().view(">u8").reshape(-1) / 2.0**64
    chosen = [share < valid, share < valid + test]
    return np.select(chosen, [SPLITS.index("valid"), SPLITS.index("test")], train).astype(np.uint8)
