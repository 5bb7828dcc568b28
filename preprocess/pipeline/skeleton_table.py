"""Skeletons as arrays, so that the texts of a whole batch are filled in by a few Arrow and numpy calls.

A skeleton is a template's own words around gaps for the texts of one layout (`formats.templates.skeleton`). The table
holds the literals and spans of all skeletons one after the other; a batch is rendered by interleaving literals
and texts in one Arrow `take`, and the spans follow from lengths in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import string_array, utf8_array
from sft_shards.formats.columnar import ConversationColumns, prefix_sums, ranges, utf8_buffers
from sft_shards.formats.records.arrow_columns import take_texts
from sft_shards.formats.templates import Change, Skeleton, Trim
from sft_shards.preprocess.pipeline.batch import Notes, Reject, TrainedTurns
from sft_shards.preprocess.pipeline.ragged import row_numbers
from sft_shards.preprocess.pipeline.whitespace import may_begin_with_space, may_end_with_space, stripped

if TYPE_CHECKING:
    import pyarrow as pa

NO_SPANS = np.empty((0, 4), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class FilledTexts:
    """Texts that were filled in, as in `RenderedBatch`."""

    text: NDArray[np.uint8]
    """u8[B]: the bytes of all texts, one after the other."""
    text_offsets: NDArray[np.int64]
    """int64[n + 1], in bytes."""
    openings: frozenset[str]
    """The first literals of the skeletons: each text begins with one of them."""
    spans: NDArray[np.int64]
    """int64[s, 2]: trained spans, [start, end) in bytes of their own text."""
    span_offsets: NDArray[np.int64]
    """int64[n + 1]: text i has `spans[span_offsets[i]:span_offsets[i + 1]]`."""


class SkeletonTable:
    """The skeletons of one template."""

    def __init__(self) -> None:

        self._skeletons: list[Skeleton] = []
        self._index = np.empty((0, 5), dtype=np.int64)
        """int64[k, 5]: for each skeleton its first literal, its first span, its number of spans, its first gap, and its
        number of gaps."""
        self._spans = NO_SPANS
        """int64[s, 4]: `Skeleton.spans` of all skeletons."""
        self._gaps = np.zeros(0, dtype=np.int64)
        """int64[number of gaps]: `Skeleton.gaps` of all skeletons."""
        self._literals = string_array([])
        """The literals of all skeletons."""
        self._changes: list[tuple[Change, ...]] = []
        """For each literal, what the template does to the text behind it."""
        self._changing = np.zeros(0, dtype=bool)
        """bool[number of literals]: whether it does anything."""
        self._trims: list[tuple[bool, bool] | None] = []
        """For each literal, whether it strips all white space on the left and on the right; None where it does more."""
        self._trimming = np.zeros(0, dtype=bool)
        """bool[number of literals]: whether it strips white space at most."""

        self._naming = np.zeros(0, dtype=bool)
        """bool[k]: for each skeleton whether it has `names`."""

    def add(self, skeletons: Iterable[Skeleton]) -> range:
        """Add skeletons, and return their numbers."""
        import pyarrow as pa

        before, added = len(self._skeletons), list(skeletons)
        self._skeletons += added
        lengths = [(len(one.literals), len(one.spans)) for one in added]
        literals, spans = np.asarray(lengths, dtype=np.int64).reshape(-1, 2).T
        gaps = literals - 1
        firsts = [
            len(known) + prefix_sums(counts)[:-1]
            for known, counts in ((self._literals, literals), (self._spans, spans), (self._gaps, gaps))
        ]
        rows = np.stack([firsts[0], firsts[1], spans, firsts[2], gaps], axis=1)
        self._index = np.concatenate([self._index, rows])
        self._spans = np.concatenate([self._spans, *(one.spans for one in added)])
        self._gaps = np.append(self._gaps, np.asarray([gap for one in added for gap in one.gaps], dtype=np.int64))
        new = string_array(chain.from_iterable(one.literals for one in added))
        self._literals = pa.concat_arrays([self._literals, new])
        changes = [changes for one in added for changes in (*one.changes, ())]
        self._changes += changes
        self._trims += map(_trims, changes)
        self._changing = np.append(self._changing, np.asarray(list(map(bool, changes)), dtype=bool))
        self._naming = np.append(self._naming, np.asarray([bool(one.names) for one in added], dtype=bool))
        trimming = [all(isinstance(one, Trim) for one in own) for own in changes]
        self._trimming = np.append(self._trimming, np.asarray(trimming, dtype=bool))
        return range(before, len(self._skeletons))

    def fill(
        self,
        numbers: NDArray[np.int64],
        conversations: ConversationColumns,
        owners: NDArray[np.int64] | None = None,
    ) -> FilledTexts:
        """Fill the texts of conversations into skeletons.

        Two conversations, both with skeleton 0, whose literals are "U:", "A:" and "." and whose one trained span goes
        from the second gap to the end. Their texts are "hi", "yes", "why", "no":

            pieces         U: hi A: yes .  U: why A: no .        of which 3 + 2 literals and texts each
            piece_offsets  [0, 5, 10]
            text t         is piece 2t + c + 1 of conversation c:  1, 3, 6, 8
            literals       one before each text, 0 1 0 1, and one at the end of each conversation, 2
            text           "U:hiA:yes.U:whyA:no."
            text_offsets   [0, 10, 20]

        The span (1 gap and 4 bytes of literals before it, 2 and 5 at its end) starts in the first text at
        4 + len("hi") = 6 and ends at 5 + len("hi") + len("yes") = 10.

        Args:
            numbers: int64[n], the skeletons.
            conversations: those whose texts are filled in; no text is blank.
            owners: int64[n], the conversation of each skeleton (default: each has one, in order).
        """
        count = len(numbers)
        first_texts = conversations.text_offsets[:-1] if owners is None else conversations.text_offsets[owners]
        first_literal, first_span, span_count, first_gap, gaps = self._index[numbers].T
        # From here on each gap counts as a text of its own.
        firsts = prefix_sums(gaps)
        texts = np.arange(firsts[-1])
        # Interleave: positions in [all literals, then all texts], in the order of the pieces.
        piece_offsets = prefix_sums(2 * gaps + 1)
        text_pieces = 2 * texts + np.repeat(np.arange(count), gaps) + 1
        literal_before = ranges(first_literal, gaps)
        numbers_of_texts = self._gaps[ranges(first_gap, gaps)]
        contents = _in_gaps(conversations.texts, numbers_of_texts + np.repeat(first_texts, gaps))
        rows_changed, changed = self._changed(contents, literal_before)
        sources = np.empty(piece_offsets[-1], dtype=np.int64)
        sources[text_pieces] = len(self._literals) + texts
        sources[text_pieces[rows_changed]] = len(self._literals) + len(texts) + np.arange(len(rows_changed))
        sources[text_pieces - 1] = literal_before
        sources[piece_offsets[1:] - 1] = first_literal + gaps
        values, byte_offsets = utf8_buffers(take_texts([self._literals, contents, changed], sources))
        # Spans: bytes of literals, which the skeleton knows, and bytes of texts in between.
        span_offsets = prefix_sums(span_count)
        rows = row_numbers(span_offsets)
        spans = self._spans[ranges(first_span, span_count)]
        sizes = np.diff(utf8_buffers(contents)[1])
        sizes[rows_changed] = np.diff(utf8_buffers(changed)[1])
        content_offsets = prefix_sums(sizes)
        before = content_offsets[firsts[rows][:, None] + spans[:, ::2]] - content_offsets[firsts[rows]][:, None]
        return FilledTexts(
            text=values,
            text_offsets=byte_offsets[piece_offsets].astype(np.int64),
            openings=frozenset([self._skeletons[number].literals[0] for number in np.unique(numbers).tolist()]),
            spans=spans[:, 1::2] + before,
            span_offsets=span_offsets,
        )

    def refusals(self, numbers: NDArray[np.int64], records: NDArray[np.int64]) -> list[Reject]:
        """Return the rejects of those conversations whose layout is refused; arguments as for `notes`."""
        found: list[Reject] = []
        for number in np.unique(numbers).tolist():
            if refusal := self._skeletons[number].refusal:
                found += [Reject.of(record, refusal) for record in records[numbers == number].tolist()]
        return found

    def notes(self, numbers: NDArray[np.int64], records: NDArray[np.int64]) -> Notes:
        """Return what is counted of conversations, by their record numbers, int64[n]; skeletons as for `fill`."""
        out: dict[int, tuple[str, ...]] = {}
        for number in np.unique(numbers).tolist():
            if found := self._skeletons[number].notes:
                out |= dict.fromkeys(records[numbers == number].tolist(), found)
        return dict(sorted(out.items())) if out else out

    def names(self, numbers: NDArray[np.int64]) -> list[tuple[int | str, ...]]:
        """Return `Skeleton.names` of each, or nothing where none has any; skeletons as for `fill`."""
        if not self._naming[numbers].any():
            return []
        return [self._skeletons[number].names for number in numbers.tolist()]

    def turns(self, numbers: NDArray[np.int64]) -> TrainedTurns:
        """Return which turns are trained in conversations; skeletons as for `fill`."""
        return TrainedTurns.of([one.turns for one in self._skeletons]).select(numbers)

    def _changed(
        self, texts: pa.StringArray, literal_before: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], pa.StringArray]:
        """Return which texts the template changes, int64[c], and what it writes of these: stripped, or as JSON.

        Args:
            texts: none is blank.
            literal_before: int64[t], the literal in front of each text, which says what is done to it.
        """
        changing = self._changing[literal_before]
        if not changing.any():
            return np.zeros(0, dtype=np.int64), utf8_array([])
        values, offsets = utf8_buffers(texts)
        raw = memoryview(values)
        spaced = may_begin_with_space(values, offsets) | may_end_with_space(values, offsets)
        rows = np.flatnonzero(changing & (spaced | ~self._trimming[literal_before]))
        columns = (offsets[rows], offsets[rows + 1], literal_before[rows])
        changed = [
            self._changed_one(raw[start:end].tobytes(), literal)
            for start, end, literal in zip(*(column.tolist() for column in columns), strict=True)
        ]
        return rows, utf8_array(changed)

    def _changed_one(self, text: bytes, literal: int) -> bytes:
        trims = self._trims[literal]
        if trims is not None:
            return stripped(text, left=trims[0], right=trims[1])
        decoded = text.decode()
        for change in self._changes[literal]:
            decoded = change(decoded)
        return decoded.encode()


def _trims(changes: tuple[Change, ...]) -> tuple[bool, bool] | None:
    """Return whether changes strip all white space on the left and on the right; None where they do anything else."""
    if any(not isinstance(one, Trim) or one.characters is not None for one in changes):
        return None
    methods = {one.method for one in changes if isinstance(one, Trim)}
    return "lstrip" in methods, "rstrip" in methods


def _in_gaps(texts: pa.StringArray, numbers: NDArray[np.int64]) -> pa.StringArray:
    """Return the text of each gap; numbers are positions in `texts`."""
    if len(numbers) == len(texts) and np.array_equal(numbers, np.arange(len(numbers))):
        return texts
    return take_texts([texts], numbers)
