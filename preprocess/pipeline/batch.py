"""What the stages of the pipeline hand to each other: four kinds of batch, each in the order of its records.

    read ──ConversationBatch──▶ render ──RenderedBatch──▶ tokenize ──TokenizedBatch──▶ truncate ──Batch──▶ writer

A batch holds flat arrays for all of its records together (see `ragged`) and the records that were rejected so far.
What belongs to few records (notes, rejects) is held in Python objects, one for each of these records. Where a stage
has two results, one of its batch and one of its reference implementation, `merge` puts them back into one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import number_array
from sft_shards.formats.columnar import ConversationColumns, prefix_sums
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import put_together
from sft_shards.formats.shards import SPLITS
from sft_shards.preprocess.pipeline.ragged import concatenate_offsets, row_numbers, take_lengths, take_rows

Notes = Mapping[int, tuple[str, ...]]
"""By record number, words that are counted for a record if it is kept (`typed_control_tokens`, say)."""
NO_SPANS: NDArray[np.int64] = np.empty((0, 2), dtype=np.int64)
LONGEST_DETAIL = 1000
"""Characters of a reject's detail that are kept."""
T = TypeVar("T")
S = TypeVar("S", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A record that is left out, and why."""

    record: int
    """Its number within the part of the source that a task reads."""
    reason: str
    """A short fixed word that is counted: `RecordError.reason`."""
    detail: str
    """What was seen, in a phrase."""

    @classmethod
    def of(cls, record: int, error: RecordError) -> Reject:
        """Return what an error says of a record. Nothing of the error is kept alive.

        A detail may quote the record, which may hold anything: it is cut, and half a surrogate pair is spelled out.
        """
        detail = error.detail if len(error.detail) <= LONGEST_DETAIL else error.detail[:LONGEST_DETAIL] + "…"
        return cls(record=record, reason=error.reason, detail=detail.encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True, kw_only=True)
class ConversationBatch:
    """What the read stage gives: each record as a conversation, or as a reject."""

    first_record: int
    """The record number of row 0: row i has the record `first_record + i`."""
    columns: ConversationColumns
    """The conversations that were read in columns. None of their texts is blank (empty, or white space alone)."""
    others: Mapping[int, Conversation]
    """All other conversations by row, rising."""
    rejects: Sequence[Reject] = ()
    """Records that could not be read, in order."""

    def __len__(self) -> int:
        return len(self.columns.rows) + len(self.others)

    def each(self) -> Iterator[tuple[int, Conversation | RecordError]]:
        """Yield each row with its conversation, rows rising; those in columns are built, which may fail."""
        found: dict[int, Conversation | RecordError] = dict(self.others)
        texts, offsets = self.columns.texts.to_pylist(), self.columns.text_offsets.tolist()
        rows = zip(self.columns.rows.tolist(), self.columns.layout_ids.tolist(), strict=True)
        for (row, number), (first, last) in zip(rows, pairwise(offsets), strict=True):
            try:
                turns, tools = put_together(self.columns.layouts[number], texts[first:last])
                found[row] = Conversation(turns=tuple(turns), tools=tuple(tools))
            except RecordError as error:
                found[row] = error.kept()
        return iter(sorted(found.items()))

    def without(self, rows: NDArray[np.int64]) -> ConversationBatch:
        """Return the conversations of all other rows, and the rejects."""
        gone = {*rows.tolist()}
        others = {row: one for row, one in self.others.items() if row not in gone}
        columns = self.columns.filter(~np.isin(self.columns.rows, rows))
        return replace(self, columns=columns, others=others)

    @classmethod
    def merge(cls, parts: Sequence[ConversationBatch]) -> ConversationBatch:
        """Join batches of different rows of the same records."""
        return cls(
            first_record=parts[0].first_record,
            columns=merge_columns([part.columns for part in parts]),
            others=dict(sorted(item for part in parts for item in part.others.items())),
            rejects=merge_rejects(parts),
        )


def merge_columns(parts: Sequence[ConversationColumns]) -> ConversationColumns:
    """Join conversations of different rows; the result is in the order of the rows."""

    parts = [part for part in parts if len(part.rows)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    joined = ConversationColumns.concatenate(parts)
    order = np.argsort(joined.rows)
    indices = take_rows(np.arange(len(joined.texts)), joined.text_offsets, order)
    return replace(
        joined,
        rows=joined.rows[order],
        layout_ids=joined.layout_ids[order],
        texts=joined.texts.take(number_array(indices)),
    )


@dataclass(frozen=True, kw_only=True)
class TrainedTurns:
    """Which turns each of several sequences trains."""

    numbers: NDArray[np.int32]
    """int32[t]: numbers of turns within their conversations, rising in each sequence."""
    offsets: NDArray[np.int64]
    """int64[n + 1]: sequence i trains `numbers[offsets[i]:offsets[i + 1]]`."""

    @classmethod
    def of(cls, turns: Sequence[Sequence[int]]) -> TrainedTurns:
        """Put the turns of several sequences one after the other."""
        numbers = np.asarray([number for own in turns for number in own], dtype=np.int32)
        return cls(numbers=numbers, offsets=prefix_sums(np.asarray(list(map(len, turns)), dtype=np.int64)))

    def select(self, rows: NDArray[np.int64]) -> TrainedTurns:
        """Return those of some sequences."""
        return TrainedTurns(
            numbers=take_rows(self.numbers, self.offsets, rows), offsets=take_lengths(self.offsets, rows)
        )

    @classmethod
    def concatenate(cls, parts: Sequence[TrainedTurns]) -> TrainedTurns:
        """Put those of several batches one after the other."""
        return cls(
            numbers=np.concatenate([part.numbers for part in parts]),
            offsets=concatenate_offsets([part.offsets for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class RenderedBatch:
    """What the render stage gives: conversations as texts in UTF-8, with the spans of each that carry loss.

    An unrolled conversation (`--rewritten-turns unroll`) has several texts, which stand one after the other here and in
    the batches that follow. All of them go the same way through a stage (see `whole_records`).
    """

    records: NDArray[np.int64]
    """int64[n]: record numbers, rising but for the texts of one conversation."""
    text: NDArray[np.uint8]
    """u8[B]: the bytes of all texts, one after the other."""
    text_offsets: NDArray[np.int64]
    """int64[n + 1], in bytes: text i is `text[text_offsets[i]:text_offsets[i + 1]]`."""
    openings: frozenset[str]
    """What the texts begin with: each text begins with one of these strings."""
    spans: NDArray[np.int64]
    """int64[s, 2]: trained spans, [start, end) in bytes of their own text. Within a text they rise, are not empty and
    do not overlap."""
    span_offsets: NDArray[np.int64]
    """int64[n + 1]: text i has `spans[span_offsets[i]:span_offsets[i + 1]]`."""
    typed: NDArray[np.int64]
    """int64[t, 2]: where somebody typed a control token, which must be encoded as text; as `spans`."""
    typed_offsets: NDArray[np.int64]
    """int64[n + 1]: text i has `typed[typed_offsets[i]:typed_offsets[i + 1]]`."""
    digests: NDArray[np.uint8]
    """u8[n, 16]: `Conversation.digest`; u8[0, 16] where splits and duplicates are not asked for."""
    rejects: Sequence[Reject] = ()
    """Records that could not be read or rendered, in order."""
    notes: Notes
    """What rendering has to say of some records."""
    turns: TrainedTurns | None = None
    """Of each text where conversations are unrolled, else None."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def texts(self) -> list[str]:
        """Each text as a string."""
        return [str(self.text[start:end].data, "utf-8") for start, end in pairwise(self.text_offsets.tolist())]

    @property
    def joined(self) -> str:
        """All texts as one string."""
        return str(self.text.data, "utf-8")

    @property
    def span_owners(self) -> NDArray[np.int64]:
        """int64[s], rising: the text that each span belongs to."""
        return row_numbers(self.span_offsets)

    def select(self, rows: NDArray[np.int64]) -> RenderedBatch:
        """Return the texts at some positions, rising; rejects stay behind."""
        records = self.records[rows]
        return RenderedBatch(
            records=records,
            text=take_rows(self.text, self.text_offsets, rows),
            text_offsets=take_lengths(self.text_offsets, rows),
            openings=self.openings,
            spans=take_rows(self.spans, self.span_offsets, rows),
            span_offsets=take_lengths(self.span_offsets, rows),
            typed=take_rows(self.typed, self.typed_offsets, rows),
            typed_offsets=take_lengths(self.typed_offsets, rows),
            digests=_selected_digests(self.digests, rows),
            notes=_selected_notes(self.notes, records),
            turns=self.turns and self.turns.select(rows),
        )

    @classmethod
    def merge(cls, parts: Sequence[RenderedBatch]) -> RenderedBatch:
        """Join batches of different records; the result is in the order of the records."""
        if (alone := _nothing_to_reorder(parts)) is not None:
            return alone
        order = _record_order(parts)
        text_offsets = concatenate_offsets([part.text_offsets for part in parts])
        span_offsets = concatenate_offsets([part.span_offsets for part in parts])
        typed_offsets = concatenate_offsets([part.typed_offsets for part in parts])
        return cls(
            records=_joined(parts, lambda part: part.records)[order],
            text=take_rows(_joined(parts, lambda part: part.text), text_offsets, order),
            text_offsets=take_lengths(text_offsets, order),
            openings=frozenset().union(*(part.openings for part in parts)),
            spans=take_rows(_joined(parts, lambda part: part.spans), span_offsets, order),
            span_offsets=take_lengths(span_offsets, order),
            typed=take_rows(_joined(parts, lambda part: part.typed), typed_offsets, order),
            typed_offsets=take_lengths(typed_offsets, order),
            digests=_selected_digests(_joined(parts, lambda part: part.digests), order),
            rejects=merge_rejects(parts),
            notes=_merged_notes(parts),
            turns=_merged_turns(parts, order),
        )


@dataclass(frozen=True, kw_only=True)
class TokenizedBatch:
    """What the tokenize stage gives: sequences of any length, with their loss masks."""

    records: NDArray[np.int64]
    """int64[n]: record numbers, as in `RenderedBatch`."""
    ids: NDArray[np.int32]
    """int32[T]: the token ids of all sequences, one after the other."""
    offsets: NDArray[np.int64]
    """int64[n + 1], in tokens: sequence i is `ids[offsets[i]:offsets[i + 1]]`. None is empty."""
    loss_mask: NDArray[np.uint8]
    """u8[T], 0/1, unshifted: entry j says whether token j, as a target, carries loss."""
    trained: NDArray[np.int64]
    """int64[n]: tokens of each sequence that carry loss."""
    straddling: NDArray[np.int64]
    """int64[n]: tokens of each sequence that begin before a trained span and end inside it."""
    digests: NDArray[np.uint8]
    """u8[n, 16] or u8[0, 16], as in `RenderedBatch`."""
    rejects: Sequence[Reject] = ()
    """Records that were rejected so far, in order."""
    notes: Notes
    """What rendering and tokenizing have to say of some records."""
    turns: TrainedTurns | None = None
    """As in `RenderedBatch`."""

    def __len__(self) -> int:
        return len(self.records)

    def sequence(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return the ids and the loss mask of one sequence."""
        start, end = self.offsets[row : row + 2].tolist()
        return self.ids[start:end], self.loss_mask[start:end]

    def select(self, rows: NDArray[np.int64]) -> TokenizedBatch:
        """Return the sequences at some positions, rising; rejects stay behind."""
        records = self.records[rows]
        return TokenizedBatch(
            records=records,
            ids=take_rows(self.ids, self.offsets, rows),
            offsets=take_lengths(self.offsets, rows),
            loss_mask=take_rows(self.loss_mask, self.offsets, rows),
            trained=self.trained[rows],
            straddling=self.straddling[rows],
            digests=_selected_digests(self.digests, rows),
            notes=_selected_notes(self.notes, records),
            turns=self.turns and self.turns.select(rows),
        )

    def without(self, rejects: Sequence[Reject], before: Sequence[Reject]) -> TokenizedBatch:
        """Return the sequences of records that are not rejected.

        Args:
            rejects: at most one for each record.
            before: rejects of other records.
        """
        joined = sorted([*before, *rejects], key=lambda reject: reject.record)
        if not rejects:
            return replace(self, rejects=joined)
        kept = np.isin(self.records, [reject.record for reject in rejects], invert=True)
        return replace(self.select(np.flatnonzero(kept)), rejects=joined)

    @classmethod
    def merge(cls, parts: Sequence[TokenizedBatch]) -> TokenizedBatch:
        """Join batches of different records; the result is in the order of the records."""
        if (alone := _nothing_to_reorder(parts)) is not None:
            return alone
        order = _record_order(parts)
        offsets = concatenate_offsets([part.offsets for part in parts])
        return cls(
            records=_joined(parts, lambda part: part.records)[order],
            ids=take_rows(_joined(parts, lambda part: part.ids), offsets, order),
            offsets=take_lengths(offsets, order),
            loss_mask=take_rows(_joined(parts, lambda part: part.loss_mask), offsets, order),
            trained=_joined(parts, lambda part: part.trained)[order],
            straddling=_joined(parts, lambda part: part.straddling)[order],
            digests=_selected_digests(_joined(parts, lambda part: part.digests), order),
            rejects=merge_rejects(parts),
            notes=_merged_notes(parts),
            turns=_merged_turns(parts, order),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the pipeline gives to the writer: sequences of at most `--max-length` tokens, and all rejects."""

    records: NDArray[np.int64]
    """int64[n]: record numbers, as in `RenderedBatch`."""
    splits: NDArray[np.uint8]
    """u8[n]: index in `SPLITS`."""
    digests: NDArray[np.uint8]
    """u8[n, 16]: `Conversation.digest`; u8[0, 16] where duplicates are not asked for."""
    lengths: NDArray[np.int64]
    """int64[n], in tokens; none is 0."""
    ids: NDArray[np.int32]
    """int32[sum(lengths)]: the token ids of all sequences, one after the other."""
    loss_mask: NDArray[np.uint8]
    """u8[sum(lengths)], 0/1, unshifted: entry j says whether token j, as a target, carries loss."""
    trained: NDArray[np.int64]
    """int64[n]: tokens of each sequence that carry loss."""
    rejects: Sequence[Reject]
    """All records that were left out, in order."""
    notes: Counter[str]
    """How often something noteworthy was seen in the sequences that are kept."""
    turns: TrainedTurns | None = None
    """As in `RenderedBatch`."""

    def sequences(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Yield ids, int32[L], and loss mask, u8[L], of each sequence; for a few of them, to be shown."""
        ends = np.cumsum(self.lengths)[:-1]
        if len(self.lengths):
            yield from zip(np.split(self.ids, ends), np.split(self.loss_mask, ends), strict=True)

    def of_split(self, split: str) -> Batch:
        """Return the sequences of one split, without rejects and notes."""
        chosen = self.splits == SPLITS.index(split)
        if chosen.all():
            return self
        rows, offsets = np.flatnonzero(chosen), prefix_sums(self.lengths)
        return Batch(
            records=self.records[rows],
            splits=self.splits[rows],
            digests=_selected_digests(self.digests, rows),
            lengths=self.lengths[rows],
            ids=take_rows(self.ids, offsets, rows),
            loss_mask=take_rows(self.loss_mask, offsets, rows),
            trained=self.trained[rows],
            rejects=(),
            notes=Counter(),
            turns=self.turns and self.turns.select(rows),
        )

    @classmethod
    def of_rejects(cls, rejects: Sequence[Reject]) -> Batch:
        """Return a batch of nothing but records that were left out."""
        integers = np.zeros(0, dtype=np.int64)
        return cls(
            records=integers,
            splits=np.zeros(0, dtype=np.uint8),
            digests=np.zeros((0, 16), dtype=np.uint8),
            lengths=integers,
            ids=np.zeros(0, dtype=np.int32),
            loss_mask=np.zeros(0, dtype=np.uint8),
            trained=integers,
            rejects=rejects,
            notes=Counter(),
        )

    @classmethod
    def merge(cls, parts: Sequence[Batch]) -> Batch:
        """Join batches of different records; the result is in the order of the records."""
        if len(parts) == 1:
            return parts[0]
        order = _record_order(parts)
        lengths = _joined(parts, lambda part: part.lengths)
        offsets = prefix_sums(lengths)
        return cls(
            records=_joined(parts, lambda part: part.records)[order],
            splits=_joined(parts, lambda part: part.splits)[order],
            digests=_selected_digests(_joined(parts, lambda part: part.digests), order),
            lengths=lengths[order],
            ids=take_rows(_joined(parts, lambda part: part.ids), offsets, order),
            loss_mask=take_rows(_joined(parts, lambda part: part.loss_mask), offsets, order),
            trained=_joined(parts, lambda part: part.trained)[order],
            rejects=merge_rejects(parts),
            notes=sum((part.notes for part in parts), Counter()),
            turns=_merged_turns(parts, order),
        )


def sequence_keys(records: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return for each sequence its record and its place among those of this record: [5, 5, 7] are 5.0, 5.1 and 7.0."""
    firsts = np.searchsorted(records, records)
    return list(zip(records.tolist(), (np.arange(len(records)) - firsts).tolist(), strict=True))


def count_trained(loss_mask: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64[n]: the tokens that carry loss in each of several sequences, none of which is empty.

    Lengths [2, 3] and the mask [0, 1, 1, 0, 1] give [1, 2].
    """
    if not len(lengths):
        return np.zeros(0, dtype=np.int64)
    return np.add.reduceat(loss_mask, np.cumsum(lengths) - lengths, dtype=np.int64)


B = TypeVar("B", RenderedBatch, TokenizedBatch)
AnyBatch = ConversationBatch | RenderedBatch | TokenizedBatch | Batch


def merge_rejects(parts: Sequence[AnyBatch]) -> Sequence[Reject]:
    """Return the rejects of several batches in the order of their records."""
    return sorted((reject for part in parts for reject in part.rejects), key=lambda reject: reject.record)


def _nothing_to_reorder(parts: Sequence[B]) -> B | None:
    """Return the merged batch where at most one part has any records, so that no array has to be copied."""
    filled = [part for part in parts if len(part)]
    if len(filled) > 1:
        return None
    return replace(filled[0] if filled else parts[0], rejects=merge_rejects(parts))


def _record_order(parts: Sequence[RenderedBatch] | Sequence[TokenizedBatch] | Sequence[Batch]) -> NDArray[np.int64]:
    """Return int64[n]: where the records, in order, stand in the parts put one after the other.

    Records [10, 12] and [11] give [0, 2, 1].
    """
    return np.argsort(np.concatenate([part.records for part in parts]), kind="stable")


def _merged_turns(
    parts: Sequence[RenderedBatch] | Sequence[TokenizedBatch] | Sequence[Batch], order: NDArray[np.int64]
) -> TrainedTurns | None:
    found = [part.turns for part in parts if part.turns is not None]
    return TrainedTurns.concatenate(found).select(order) if found else None


def _joined(parts: Iterable[T], field: Callable[[T], NDArray[S]]) -> NDArray[S]:
    """Concatenate one field of all parts."""
    return np.concatenate([field(part) for part in parts])


def _selected_digests(digests: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return digests[rows] if len(digests) else digests


def _selected_notes(notes: Notes, records: NDArray[np.int64]) -> Notes:
    if not notes:
        return notes
    return {record: notes[record] for record in records.tolist() if record in notes}


def _merged_notes(parts: Sequence[RenderedBatch] | Sequence[TokenizedBatch]) -> Notes:
    return {record: words for part in parts for record, words in part.notes.items()}
