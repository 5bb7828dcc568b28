"""Verification while a job runs: a sample of the sequences is made again by the reference pipeline, and compared.

The backend was compared with Hugging Face's ids before the job started. No test can try all texts, so the job goes on
looking: at some records of each kind, and at a share of the others, which the record number chooses (see `sample`). A
record of which the two ways make different texts or masks, or whose turns are not where inference would generate them
(see `formats.templates.rule`), is left out with both spans named. Other ids than Hugging Face's end the job: another
backend can be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sft_shards.formats.errors import RecordError
from sft_shards.formats.records import RecordFormat
from sft_shards.formats.templates import Span
from sft_shards.preprocess.pipeline.batch import (
    ConversationBatch,
    Reject,
    RenderedBatch,
    TokenizedBatch,
    sequence_keys,
)
from sft_shards.preprocess.pipeline.ragged import whole_records
from sft_shards.preprocess.pipeline.reference import ReferencePipeline
from sft_shards.preprocess.pipeline.rendered_texts import text_strings
from sft_shards.preprocess.pipeline.sample import Sample
from sft_shards.preprocess.pipeline.tokenize import require_same_ids
from sft_shards.preprocess.sources import RawBatch


class Verification:
    """Compares a sample of the sequences of a task with the reference pipeline.

    Args:
        reference: the reference pipeline.
        backend: the name of what gave the ids, for messages.
        every: one record in so many is compared besides the first ones of each kind; 0 for these only.
    """

    def __init__(self, reference: ReferencePipeline, backend: str, every: int) -> None:
        self._reference, self._backend, self._every = reference, backend, every
        self._sample = Sample(every)

    def start_task(self) -> None:
        """Draw the sample of another task."""
        self._sample = Sample(self._every)

    def verify(
        self,
        raw: RawBatch,
        format_: RecordFormat,
        conversations: ConversationBatch,
        rendered: RenderedBatch,
        tokenized: TokenizedBatch,
    ) -> TokenizedBatch:
        """Compare a sample of sequences with what the reference pipeline makes of their raw records.

        Args:
            conversations, rendered: what the sequences were made from.

        Returns:
            The sequences without those that the reference makes otherwise or rejects, which are among its rejects.

        Raises:
            DataError: the ids of the same text differ; the record is named.
        """
        in_columns = np.isin(rendered.records, conversations.first_record + conversations.columns.rows)
        sampled = self._sample.choose(rendered, in_columns, tokenized.records)
        chosen = np.flatnonzero(whole_records(tokenized.records, sampled))
        if not len(chosen):
            return tokenized
        got = tokenized.select(chosen)
        reference = self._reference
        read = reference.read(raw, format_, np.unique(got.records - raw.first).tolist())
        expected_texts = reference.render(read, by_rule=True)
        got_texts = rendered.select(np.flatnonzero(np.isin(rendered.records, got.records)))
        found = [*expected_texts.rejects, *different_texts(got_texts, expected_texts)]
        same = np.isin(expected_texts.records, [reject.record for reject in found], invert=True)
        expected = reference.tokenize(expected_texts.select(np.flatnonzero(same)))
        found += expected.rejects
        got = got.select(np.flatnonzero(np.isin(got.records, expected.records)))
        require_same_ids(got, expected, self._backend)
        found += different_masks(got, expected)
        once = {reject.record: reject for reject in reversed(found)}
        return tokenized.without(list(once.values()), before=tokenized.rejects) if found else tokenized


def different_texts(got: RenderedBatch, expected: RenderedBatch) -> list[Reject]:
    """Return a reject for each record whose text or trained spans the reference path makes otherwise."""
    ours = dict(zip(sequence_keys(got.records), text_strings(got), strict=True))
    theirs = dict(zip(sequence_keys(expected.records), text_strings(expected), strict=True))
    rejected = {reject.record for reject in expected.rejects}
    nothing: tuple[str, list[Span], list[Span]] = ("", [], [])
    found: dict[int, Reject] = {}
    for record, place in sorted({*ours, *theirs}):
        text, spans, _ = ours.get((record, place), nothing)
        other, other_spans, _ = theirs.get((record, place), nothing)
        if record not in rejected and (text, spans) != (other, other_spans):
            detail = f"the batch path trains {_shown(text, spans, other_spans)}, "
            detail += f"the reference path {_shown(other, other_spans, spans)}"
            if text != other:
                at = next((at for at, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), 0)
                detail += f"; their texts differ from character {at} on: {text[at:][:40]!r}, {other[at:][:40]!r}"
            found.setdefault(record, Reject.of(record, RecordError("paths_differ", detail)))
    return list(found.values())


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
