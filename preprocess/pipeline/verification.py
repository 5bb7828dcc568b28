"""Verification while a job runs: a sample of the sequences is made again by the reference pipeline, and compared.

The backend was compared with Hugging Face's ids before the job started. No test can try all texts, so the job goes on
looking: at the first sequences of every process, and at a share of the others, which the record number chooses. A
record of which the two ways make different texts or masks, or whose turns are not where inference would generate them
(see `formats.templates.rule`), is left out with both spans named. Other ids than Hugging Face's end the job: another
backend can be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import RecordFormat
from sft_shards.formats.templates import Span
from sft_shards.preprocess.pipeline.batch import Reject, RenderedBatch, TokenizedBatch
from sft_shards.preprocess.pipeline.reference import ReferencePipeline
from sft_shards.preprocess.pipeline.render import text_strings
from sft_shards.preprocess.pipeline.tokenize import require_same_ids
from sft_shards.preprocess.sources import RawBatch

ALWAYS_VERIFIED = 100
"""Of so many sequences, the first that a process makes, each is compared."""


class Verification:
    """Compares a sample of the sequences of a process with the reference pipeline.

    Args:
        reference: the reference pipeline.
        backend: the name of what gave the ids, for messages.
        every: one sequence in so many is compared; 0 for the first ones only.
    """

    def __init__(self, reference: ReferencePipeline, backend: str, every: int) -> None:
        self._reference, self._backend, self._every = reference, backend, every
        self._verified = 0

    def verify(
        self, raw: RawBatch, format_: RecordFormat, rendered: RenderedBatch, tokenized: TokenizedBatch
    ) -> TokenizedBatch:
        """Compare a sample of sequences with what the reference pipeline makes of their raw records.

        Args:
            rendered: what the sequences were encoded from.

        Returns:
            The sequences without those that the reference makes otherwise or rejects, which are among its rejects.

        Raises:
            DataError: the ids of the same text differ; the record is named.
        """
        chosen = np.flatnonzero(self.sample(tokenized.records))
        if not len(chosen):
            return tokenized
        got = tokenized.select(chosen)
        reference = self._reference
        conversations = reference.read(raw, format_, (got.records - raw.first).tolist())
        expected_texts = reference.render(conversations, by_rule=True)
        got_texts = rendered.select(np.searchsorted(rendered.records, got.records))
        found = [*expected_texts.rejects, *different_texts(got_texts, expected_texts)]
        same = np.isin(expected_texts.records, [reject.record for reject in found], invert=True)
        expected = reference.tokenize(expected_texts.select(np.flatnonzero(same)))
        found += expected.rejects
        got = got.select(np.flatnonzero(np.isin(got.records, expected.records)))
        require_same_ids(got, expected, self._backend)
        found += different_masks(got, expected)
        if not found:
            return tokenized
        kept = np.isin(tokenized.records, [reject.record for reject in found], invert=True)
        rejects = sorted([*tokenized.rejects, *found], key=lambda reject: reject.record)
        return replace(tokenized.select(np.flatnonzero(kept)), rejects=rejects)

    def sample(self, records: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool[n]: which records to compare: the first ones of the process, then a seeded share."""
        chosen = np.arange(self._verified, self._verified + len(records)) < ALWAYS_VERIFIED
        self._verified += int(chosen.sum())
        if self._every:
            hashed = (records.astype(np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
            chosen |= hashed % np.uint64(self._every) == 0
        return chosen


def different_texts(got: RenderedBatch, expected: RenderedBatch) -> list[Reject]:
    """Return a reject for each record whose text or trained spans the reference path makes otherwise."""
    known = dict(zip(expected.records.tolist(), text_strings(expected), strict=True))
    found = []
    for record, (text, spans, _) in zip(got.records.tolist(), text_strings(got), strict=True):
        if record in known and known[record][:2] != (text, spans):
            other, other_spans, _ = known[record]
            detail = f"the batch path trains {_shown(text, spans, other_spans)}, "
            detail += f"the reference path {_shown(other, other_spans, spans)}"
            if text != other:
                at = next((at for at, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), 0)
                detail += f"; their texts differ from character {at} on: {text[at:][:40]!r}, {other[at:][:40]!r}"
            found.append(Reject.of(record, RecordError("paths_differ", detail)))
    return found


def _shown(text: str, spans: Sequence[Span], others: Sequence[Span]) -> str:
    """Return the first span that the other path does not have, with its first words: `[8, 13) " yes."`."""
    start, end = next((span for span in spans if span not in others), (0, 0))
    return f"[{start}, {end}) {text[start : min(end, start + 60)]!r}"


def different_masks(got: TokenizedBatch, expected: TokenizedBatch) -> list[Reject]:
    """Return a reject for each record of which the two paths train other tokens, the ids being the same."""
    found = []
    different = np.flatnonzero(got.loss_mask != expected.loss_mask)
    for row in np.unique(np.searchsorted(got.offsets, different, "right") - 1):
        tokens = [np.flatnonzero(batch.sequence(int(row))[1]) for batch in (got, expected)]
        ours, theirs = (np.setdiff1d(one, other) for one, other in (tokens, tokens[::-1]))
        detail = f"the batch path alone trains tokens {ours[:10].tolist()}, "
        detail += f"the reference path alone {theirs[:10].tolist()}"
        found.append(Reject.of(int(got.records[row]), RecordError("paths_differ", detail)))
    return found
