"""The render stage: conversations to texts, with the spans of each that carry loss.

    ConversationBatch ──▶ RenderedBatch

The reference implementation (`reference_rendering`) runs the chat template with Jinja, one conversation at a time. The
batch implementation fills skeletons (see `formats.templates.skeleton`): a conversation whose layout was seen before is
the template's own words with its texts in between. It hands on to the reference what has no layout, layouts of which no
skeleton can be made, and texts to which the template might react otherwise than it did to the skeleton's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import INPUT, ConversationColumns, ranges, text_labels, utf8_buffers
from sft_shards.formats.conversation import PLAIN_TEXT, ROLES, Conversation
from sft_shards.formats.layouts import is_assistants, take_apart
from sft_shards.formats.templates import ChatTemplate, TrainOn
from sft_shards.formats.templates.trained_texts import LONGEST_HISTORY
from sft_shards.preprocess.pipeline.argument_members import take_arguments_apart
from sft_shards.preprocess.pipeline.batch import NO_SPANS, ConversationBatch, RenderedBatch, merge_rejects
from sft_shards.preprocess.pipeline.call_ids import with_ids_told_apart, with_known_lengths
from sft_shards.preprocess.pipeline.constant_tools import ConstantTools
from sft_shards.preprocess.pipeline.ignored_tools import with_ignored
from sft_shards.preprocess.pipeline.layout_skeletons import LayoutSkeletons, conversation_of
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.think_blocks import THINK, take_think_blocks_apart


class BatchRendering:
    """Renders conversations by filling skeletons, which are made when a layout is first seen.

    Args:
        template, policy, with_digests: as for the reference.
        reference: renders what no skeleton can.

    Attributes:
        fallbacks: how many conversations went to the reference.
    """

    def __init__(
        self, template: ChatTemplate, policy: TrainOn, reference: ReferenceRendering, *, with_digests: bool
    ) -> None:
        self._policy, self._with_digests = policy, with_digests
        self._reference = reference
        self._skeletons = LayoutSkeletons(template, policy)
        self._constant_tools = ConstantTools(self._skeletons)
        self.fallbacks = 0

    def render(self, conversations: ConversationBatch) -> RenderedBatch:
        """Render every conversation; one that the template refuses is rejected."""
        parts: list[RenderedBatch] = []
        rest, known = conversations, None
        while not parts or (len(rest.columns.rows) and self._looks_into() != known):  # which the layouts just showed
            known = self._looks_into()
            columns = self._with_members(self._with_thoughts(rest.columns))
            parts.append(self._fill(conversations.first_record, columns))
            rest = rest.without(_rows(parts[-1], conversations))
        if len(rest):
            parts.append(self._fill_others(rest))
            rest = rest.without(_rows(parts[-1], conversations))
        if not len(rest):
            merged = RenderedBatch.merge(parts)
            return replace(merged, rejects=merge_rejects([conversations, merged]))
        self.fallbacks += len(rest)
        return RenderedBatch.merge([*parts, self._reference.render(rest)])

    def _looks_into(self) -> tuple[bool, ...]:
        """Return what the template is known to look into: the parts of texts that layouts have labels for."""
        thinks = any(THINK.decode() in one for one in self._skeletons.forbidden)
        return thinks, self._skeletons.with_members, self._skeletons.with_order

    def _with_thoughts(self, conversations: ConversationColumns) -> ConversationColumns:
        """Return conversations with their think blocks in the layouts, where the template looks for think tags."""
        if not len(conversations.rows) or not self._looks_into()[0]:
            return conversations
        return take_think_blocks_apart(conversations)

    def _with_members(self, conversations: ConversationColumns) -> ConversationColumns:
        """Return conversations with the members of arguments in the layouts, where the template looks into these."""
        if not self._skeletons.with_members:
            return conversations
        return take_arguments_apart(conversations, with_order=self._skeletons.with_order)

    def _fill_others(self, conversations: ConversationBatch) -> RenderedBatch:
        """Fill what is not in columns: the conversations that have a layout."""
        found = {row: one for row, one in conversations.each() if isinstance(one, Conversation)}
        parts = {row: taken for row, one in found.items() if (taken := take_apart(one)) is not None}
        digests = {row: found[row].digest() for row in parts} if self._with_digests else {}
        columns = self._with_members(ConversationColumns.from_rows(parts))
        return self._fill(conversations.first_record, columns, digests)

    def _fill(
        self, first_record: int, conversations: ConversationColumns, digests: Mapping[int, bytes] | None = None
    ) -> RenderedBatch:
        """Fill those conversations that a skeleton holds for.

        Args:
            digests: `Conversation.digest` of each by row (default: it is found here).
        """
        records = first_record + conversations.rows
        bounds = self._skeletons.bounds(conversations, records)
        conversations, bounds = with_known_lengths(self._skeletons, conversations, records, bounds)
        conversations, bounds = with_ids_told_apart(self._skeletons, conversations, records, bounds)
        conversations, bounds = self._constant_tools.bounds(conversations, records, bounds)
        supported = bounds[:, 1] > bounds[:, 0]
        if self._policy.asks_histories:
            supported &= _has_short_history(conversations)
        conversations, bounds = conversations.filter(supported), bounds[supported]
        unsupported = self._unsupported(conversations)
        if unsupported.any():
            keep = ~np.logical_or.reduceat(unsupported, conversations.text_offsets[:-1])
            conversations, bounds = conversations.filter(keep), bounds[keep]
        rejects = self._skeletons.table.refusals(bounds[:, 0], first_record + conversations.rows)
        if rejects:
            keep = ~np.isin(first_record + conversations.rows, [one.record for one in rejects])
            conversations, bounds = conversations.filter(keep), bounds[keep]
        owners, numbers = _ranges(bounds)
        filled, rows = self._skeletons.table.fill(numbers, conversations, owners), first_record + conversations.rows
        notes, names = self._skeletons.table.notes(bounds[:, 0], rows), self._skeletons.table.names(numbers)
        notes = with_ignored(notes, rows, names, filled, conversations, owners)
        own: Sequence[bytes] = ()
        if self._with_digests:
            found = digests_of(conversations) if digests is None else map(digests.get, conversations.rows.tolist())
            own = [digest for digest in found if digest is not None]
            own = [own[owner] for owner in owners.tolist()]
        return RenderedBatch(
            records=rows[owners],
            text=filled.text,
            text_offsets=filled.text_offsets,
            openings=filled.openings,
            spans=filled.spans,
            span_offsets=filled.span_offsets,
            typed=NO_SPANS,
            typed_offsets=np.zeros(len(numbers) + 1, dtype=np.int64),
            digests=np.frombuffer(b"".join(own), dtype=np.uint8).reshape(-1, 16),
            rejects=rejects,
            notes=notes,
            turns=self._skeletons.table.turns(numbers) if self._policy.rewritten == "unroll" else None,
        )

    def _unsupported(self, conversations: ConversationColumns) -> NDArray[np.bool_]:
        """Return bool[t]: the texts that must not be filled in.

        These are the texts that may hold a noncharacter (some mark places while Jinja renders), and those
        with a forbidden string in them: a control token, or what the template looks for in texts.
        """
        values, offsets = utf8_buffers(conversations.texts)
        unsupported = np.zeros(len(conversations.texts), dtype=bool)
        noncharacters = np.flatnonzero(values[:-1] == 0xEF)
        noncharacters = noncharacters[values[noncharacters + 1] == 0xB7]  # U+FDC0 to U+FDFF
        unsupported[np.searchsorted(offsets, noncharacters, side="right") - 1] = True
        place = 0
        bounds = conversations.text_offsets
        for start, string in self._skeletons.search.find(values):
            if start < place:
                continue
            owner = np.searchsorted(offsets, start, side="right") - 1
            if string in self._skeletons.tags:
                row = np.searchsorted(bounds, owner, side="right") - 1
                layout = conversations.layouts[conversations.layout_ids[row]]
                if is_assistants(text_labels(layout)[owner - bounds[row]]):
                    continue
            unsupported[owner] = True
            place = int(offsets[owner + 1])
        return unsupported


def _rows(done: RenderedBatch, conversations: ConversationBatch) -> NDArray[np.int64]:
    """Return the rows of conversations of which a batch says what becomes of them."""
    rejected = np.asarray([reject.record for reject in done.rejects], dtype=np.int64)
    return np.append(done.records, rejected) - conversations.first_record


def _has_short_history(conversations: ConversationColumns) -> NDArray[np.bool_]:
    """Return bool[n]: whether the histories of all turns together are certainly shorter than `LONGEST_HISTORY`.

    Each is at most the whole text. An eighth leaves room for the template's words and for JSON.
    """
    bounds = conversations.text_offsets
    sizes = np.diff(utf8_buffers(conversations.texts)[1][bounds]).astype(np.int64)
    return np.asarray(np.diff(bounds) * sizes <= LONGEST_HISTORY // 8)


def _ranges(bounds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers in several ranges one after the other, int64[m], and the range that each is of, int64[m].

    [3, 5) and [7, 8) give the ranges [0, 0, 1] and the numbers [3, 4, 7].
    """
    counts = bounds[:, 1] - bounds[:, 0]
    return np.repeat(np.arange(len(bounds)), counts), ranges(bounds[:, 0], counts)


def digests_of(conversations: ConversationColumns) -> list[bytes]:
    """Return `Conversation.digest` of each conversation; those with fields beside their texts are built for it."""
    digests = list(conversations.digests())
    with_fields = [not {*layout} <= {*ROLES, INPUT, PLAIN_TEXT} for layout in conversations.layouts]
    if any(with_fields):
        texts, offsets = conversations.texts.to_pylist(), conversations.text_offsets.tolist()
        for row in np.flatnonzero(np.asarray(with_fields)[conversations.layout_ids]).tolist():
            layout = conversations.layouts[conversations.layout_ids[row]]
            digests[row] = conversation_of(layout, texts[offsets[row] : offsets[row + 1]]).digest()
    return digests
