"""The render stage: conversations to texts, with the spans of each that carry loss.

    ConversationBatch ──▶ RenderedBatch

The reference implementation runs the chat template with Jinja, one conversation at a time. The batch implementation
fills skeletons (see `formats.templates.skeleton`): a conversation whose layout was seen before is the template's own
words with its texts in between. It hands on to the reference what has no layout, layouts of which no skeleton can be
made, and texts to which the template might react otherwise than it did to the skeleton's.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, chain, pairwise

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bools_of
from sft_shards.formats.columnar import (
    INPUT,
    ConversationColumns,
    Layout,
    prefix_sums,
    text_labels,
    utf8_buffers,
)
from sft_shards.formats.conversation import PLAIN_TEXT, ROLES, Conversation, as_json
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.layouts import (
    example_texts,
    is_assistants,
    json_text,
    put_together,
    take_apart,
    take_thoughts_apart,
    turns_of,
)
from sft_shards.formats.templates import (
    ChatTemplate,
    Skeleton,
    Span,
    Tracer,
    TrainedConversation,
    TrainedText,
    TrainOn,
    train,
)
from sft_shards.formats.templates.rendering import CALL, CALL_END
from sft_shards.formats.templates.skeleton import plain_text_skeleton
from sft_shards.formats.templates.trained_texts import LONGEST_HISTORY
from sft_shards.preprocess.pipeline.batch import (
    NO_SPANS,
    ConversationBatch,
    Notes,
    Reject,
    RenderedBatch,
    TrainedTurns,
    merge_columns,
)
from sft_shards.preprocess.pipeline.skeleton_table import SkeletonTable

MOST_SKELETONS = 4096
"""Skeletons that are kept at most. Beyond that, conversations with other role sequences are rendered by Jinja."""
MOST_HISTORIES = 8
"""Assistant turns of a layout up to which skeletons are made where each turn's history is asked for: longer layouts
seldom occur twice, and one costs as much as several records."""
LARGEST_UNROLLED = 1 << 25
"""Characters of the histories of conversations that are unrolled together, as far as their messages tell."""
THINK = "think>"
"""What each think tag ends with."""
LONGEST_OPENING = 64
"""Characters of a text that are noted as its opening; no control token is longer."""


class UnrolledTooLargeError(MemoryError):
    """The histories of a batch of conversations are too large to be held together.

    Attributes:
        record: the number of the record in front of which the batch is to be cut.
    """

    def __init__(self, record: int) -> None:
        super().__init__(f"the histories of the records up to {record} are too large together")
        self.record = record


class ReferenceRendering:
    """Renders with Jinja, one conversation at a time.

    Args:
        template: the chat template, with the tokens of one tokenizer.
        policy: which of the assistant's words carry loss.
        with_digests: whether splits or duplicates need `Conversation.digest`.

    Raises:
        UsageError: what carries loss cannot be told under the template.
    """

    def __init__(self, template: ChatTemplate, policy: TrainOn, *, with_digests: bool) -> None:
        template.require_parts(policy)
        self._template, self._policy, self._with_digests = template, policy, with_digests

    def render(self, conversations: ConversationBatch, *, by_rule: bool = False) -> RenderedBatch:
        """Render every conversation; one that the template refuses is rejected.

        Args:
            by_rule: whether turns are compared with the rule, as `ChatTemplate.render` says.

        Raises:
            UnrolledTooLargeError: with `--rewritten-turns unroll`, and not by the rule.
        """
        if self._policy.rewritten == "unroll" and self._template.rewriting.rewrites and not by_rule:
            _require_small(conversations)
        rejects = list(conversations.rejects)
        records: list[int] = []
        trained: list[TrainedText] = []
        notes: dict[int, tuple[str, ...]] = {}
        digests: list[bytes] = []
        for row, conversation in conversations.each():
            record = conversations.first_record + row
            try:
                if isinstance(conversation, RecordError):
                    raise conversation
                if conversation.template_arguments:
                    self._require_parts(conversation)
                found = train(self._template, conversation, self._policy, by_rule=by_rule)
            except RecordError as error:
                rejects.append(Reject.of(record, error.kept()))
                continue
            records += [record] * len(found.texts)
            trained += found.texts
            if found.notes:
                notes[record] = found.notes
            if self._with_digests:
                digests += [self._digest(conversation, found.whole.text)] * len(found.texts)
        rejects.sort(key=lambda reject: reject.record)
        return as_batch(records, trained, digests, rejects, notes, unrolled=self._policy.rewritten == "unroll")

    def _require_parts(self, conversation: Conversation) -> None:
        """Refuse a record with whose arguments the template cannot do what the policy asks, as a job's are refused."""
        try:
            self._template.suited(conversation).require_parts(self._policy)
        except UsageError as error:
            raise RecordError("template_error", f"with the arguments of the record: {error}") from None

    def _digest(self, conversation: Conversation, text: str) -> bytes:
        """Return `Conversation.digest`; where documents or arguments change the text, its second half hashes the text.

        So they count for duplicates, and not for splits, which go by the first half.
        """
        digest = conversation.digest()
        if conversation.documents or conversation.template_arguments:
            bare = replace(conversation, documents=(), template_arguments={})
            with contextlib.suppress(RecordError):
                if self._template.render(bare).text == text:
                    return digest
            return digest[:8] + hashlib.blake2b(text.encode(), digest_size=8).digest()
        return digest


def _require_small(conversations: ConversationBatch) -> None:
    """Make sure, before any is rendered, that the histories of conversations can be held together.

    A conversation with n turns of the assistant has n histories, each at most as large as the conversation. Those of
    one conversation are bounded by `formats.templates.trained_texts.LONGEST_HISTORY`.

    Raises:
        UnrolledTooLargeError: they cannot.
    """
    size = 0
    for at, (row, one) in enumerate(conversations.each()):
        if isinstance(one, Conversation):
            speakers = sum(turn.role == "assistant" for turn in one.turns)
            size += speakers * len(as_json([one.messages(), list(one.tools)]))
        if size > LARGEST_UNROLLED and at:
            raise UnrolledTooLargeError(conversations.first_record + row)


def as_batch(
    records: list[int],
    trained: list[TrainedText],
    digests: list[bytes],
    rejects: list[Reject],
    notes: Notes,
    *,
    unrolled: bool = False,
) -> RenderedBatch:
    """Put texts with their trained spans into one batch, characters becoming bytes.

    Args:
        records: the record number of each text, in order.
        digests: one for each text, or none.
        unrolled: whether a record may have several texts, and so the batch says which turns each trains.
    """
    raw = [one.rendering.text.encode() for one in trained]
    spans = [_in_bytes(text, one.spans) for text, one in zip(raw, trained, strict=True)]
    typed = [_in_bytes(text, one.rendering.typed) for text, one in zip(raw, trained, strict=True)]
    return RenderedBatch(
        records=np.asarray(records, dtype=np.int64),
        text=np.frombuffer(b"".join(raw), dtype=np.uint8),
        text_offsets=_offsets(raw),
        openings=frozenset(one.rendering.text[:LONGEST_OPENING] for one in trained),
        spans=np.concatenate([NO_SPANS, *spans]),
        span_offsets=_offsets(spans),
        typed=np.concatenate([NO_SPANS, *typed]),
        typed_offsets=_offsets(typed),
        digests=np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16),
        rejects=rejects,
        notes=notes,
        turns=TrainedTurns.of([one.turns for one in trained]) if unrolled else None,
    )


def _offsets(parts: list[bytes] | list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return prefix_sums(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))


def _in_bytes(raw: bytes, spans: tuple[Span, ...] | list[Span]) -> NDArray[np.int64]:
    """Return int64[s, 2]: spans in characters of a text as spans in bytes of its UTF-8.

    In "naïve" the span (2, 4), "ïv", is [2, 5): the characters begin at bytes 0, 1, 2, 4 and 5.
    """
    characters = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    return characters if raw.isascii() or not len(characters) else character_starts(raw)[characters]


def character_starts(raw: bytes) -> NDArray[np.int64]:
    """Return int64[characters + 1]: the byte at which each character of a UTF-8 text begins, and the text's length."""
    values = np.frombuffer(raw, dtype=np.uint8)
    return np.append(np.flatnonzero((values & 0xC0) != 0x80), len(values))


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
        self._template, self._policy, self._with_digests = template, policy, with_digests
        self._reference = reference
        self.fallbacks = 0
        self._tracers: dict[bool, Tracer] = {}
        """One for conversations that offer tools, and one for the others."""
        self._numbers: dict[Layout, range] = {}
        """The numbers of a layout's skeletons in the table: several where it is unrolled, none where it has none."""
        self._table = SkeletonTable()
        calls = set() if policy.tool_calls else {CALL, CALL_END}
        self._forbid({*template.reasoning_tags, *template.control.everywhere, *calls})

    def _forbid(self, strings: set[str]) -> None:
        self._forbidden = strings
        """Strings that no text of a filled skeleton may hold."""
        tags = {*self._template.control.tags} - strings
        self._tags = frozenset(tag.encode() for tag in tags)
        """Strings that only an assistant's text may hold."""
        self._pattern = _any_of({form for one in strings | tags for form in (one, json_text(one)[1:-1])})

    def render(self, conversations: ConversationBatch) -> RenderedBatch:
        """Render every conversation; one that the template refuses is rejected."""
        parts = [self._fill(conversations.first_record, self._with_thoughts(conversations.columns))]
        rest = conversations.without(parts[0].records - conversations.first_record)
        if len(rest):
            parts.append(self._fill_others(rest))
            rest = rest.without(parts[1].records - conversations.first_record)
        if not len(rest):
            return replace(RenderedBatch.merge(parts), rejects=conversations.rejects)
        self.fallbacks += len(rest)
        return RenderedBatch.merge([*parts, self._reference.render(rest)])

    def _with_thoughts(self, conversations: ConversationColumns) -> ConversationColumns:
        """Return conversations with their think blocks in the layouts, where the template looks for think tags."""
        if not len(conversations.rows) or not any(THINK in one for one in self._forbidden):
            return conversations
        if re.search(THINK.encode(), utf8_buffers(conversations.texts)[0]) is None:
            return conversations
        import pyarrow.compute as pc

        holding = bools_of(pc.match_substring(conversations.texts, THINK))
        if not holding.any():  # it stands across two texts
            return conversations
        thinking = np.logical_or.reduceat(holding, conversations.text_offsets[:-1])
        some = conversations.filter(thinking)
        texts, offsets = some.texts.to_pylist(), some.text_offsets.tolist()
        found = {}
        for row, number, (first, last) in zip(some.rows, some.layout_ids, pairwise(offsets), strict=True):
            taken = take_thoughts_apart(some.layouts[number], texts[first:last])
            if taken is not None:
                found[int(row)] = taken
        rest = conversations.filter(~np.isin(conversations.rows, list(found)))
        return merge_columns([rest, ConversationColumns.from_rows(found)])

    def _fill_others(self, conversations: ConversationBatch) -> RenderedBatch:
        """Fill what is not in columns: the conversations that have a layout."""
        found = {row: one for row, one in conversations.each() if isinstance(one, Conversation)}
        parts = {row: taken for row, one in found.items() if (taken := take_apart(one)) is not None}
        digests = {row: found[row].digest() for row in parts} if self._with_digests else {}
        return self._fill(conversations.first_record, ConversationColumns.from_rows(parts), digests)

    def _fill(
        self, first_record: int, conversations: ConversationColumns, digests: Mapping[int, bytes] | None = None
    ) -> RenderedBatch:
        """Fill those conversations that a skeleton holds for.

        Args:
            digests: `Conversation.digest` of each by row (default: it is found here).
        """
        bounds = self._skeletons(conversations)
        supported = bounds[:, 1] > bounds[:, 0]
        if self._policy.asks_histories:
            supported &= _has_short_history(conversations)
        conversations, bounds = conversations.filter(supported), bounds[supported]
        unsupported = self._unsupported(conversations)
        if unsupported.any():
            keep = ~np.logical_or.reduceat(unsupported, conversations.text_offsets[:-1])
            conversations, bounds = conversations.filter(keep), bounds[keep]
        owners, numbers = _ranges(bounds)
        filled, rows = self._table.fill(numbers, conversations, owners), first_record + conversations.rows
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
            notes=self._table.notes(bounds[:, 0], rows),
            turns=self._table.turns(numbers) if self._policy.rewritten == "unroll" else None,
        )

    def _skeletons(self, conversations: ConversationColumns) -> NDArray[np.int64]:
        """Return int64[n, 2]: the first of each conversation's skeletons and the one behind the last.

        Skeletons are made where a layout is new.
        """
        known = self._numbers
        if new := sorted({*conversations.layouts} - known.keys())[: MOST_SKELETONS - len(known)]:
            made = [self._trace(layout) for layout in new]
            numbers = self._table.add(chain.from_iterable(made))
            ends = accumulate(map(len, made), initial=0)
            known |= {layout: numbers[first:end] for layout, (first, end) in zip(new, pairwise(ends), strict=True)}
        found = [known.get(layout, range(0)) for layout in conversations.layouts]
        bounds = np.asarray([(one.start, one.stop) for one in found], dtype=np.int64).reshape(-1, 2)
        return bounds[conversations.layout_ids]

    def _trace(self, layout: Layout) -> list[Skeleton]:
        """Return the skeletons of a layout, one for each text that it is trained as.

        There are none where an example shows that the template cannot be traced.
        """
        if layout == (PLAIN_TEXT,):
            return [plain_text_skeleton(self._template.tokens)]
        texts = example_texts(layout)
        try:
            conversation = _conversation(layout, texts)
            asks = self._policy.asks_histories and bool(self._template.suited(conversation).rewriting.rewrites)
            if asks and sum(turn.role == "assistant" for turn in conversation.turns) > MOST_HISTORIES:
                return []
            found = train(self._template, conversation, self._policy)
            tracer = self._tracer(conversation)
        except RecordError:
            return []
        looked_for = tracer.looked_for_in_histories(layout) if asks else frozenset()
        if looked_for is None or (asks and not self._holds_for_padded(layout, texts, found)):
            return []
        skeletons = []
        absent = set(looked_for)
        for text in found.texts:
            end = len(layout) if text.rendering is found.whole else turns_of(layout)[text.turns[-1]][2]
            own = texts[: len(text_labels(layout[:end]))]
            skeleton = tracer.trace(layout[:end], own, text.rendering, text.spans)
            if skeleton is None or {*text.rendering.notes} - {"reasoning_dropped"} or text.rendering.typed:
                return []
            absent |= skeleton.absent
            skeletons.append(replace(skeleton, notes=found.notes, turns=text.turns))
        if not absent <= self._forbidden:
            self._forbid(self._forbidden | absent)
        return skeletons

    def _holds_for_padded(self, layout: Layout, texts: Sequence[str], found: TrainedConversation) -> bool:
        """Return whether texts with white space around them have the same turns trained in the same texts.

        A template may strip a text in one rendering and not in another, which shows in such texts alone.
        """
        labels = text_labels(layout)
        for space in ("\n ", " \n"):
            padded = [
                space + text + space if label in (*ROLES, "reasoning") else text
                for label, text in zip(labels, texts, strict=True)
            ]
            try:
                other = train(self._template, _conversation(layout, padded), self._policy)
            except RecordError:
                return False
            if [one.turns for one in other.texts] != [one.turns for one in found.texts]:
                return False
        return True

    def _tracer(self, conversation: Conversation) -> Tracer:
        offered = bool(conversation.tools)
        if offered not in self._tracers:
            suited = self._template.suited(conversation)
            self._forbid(self._forbidden | suited.reasoning_tags)
            self._tracers[offered] = Tracer(suited)
        return self._tracers[offered]

    def _unsupported(self, conversations: ConversationColumns) -> NDArray[np.bool_]:
        """Return bool[t]: the texts that must not be filled in.

        These are the texts that may hold a noncharacter (some mark places while Jinja renders), and those
        with a forbidden string in them: a control token, or what the template looks for in texts.
        """
        values, offsets = utf8_buffers(conversations.texts)
        unsupported = np.zeros(len(conversations.texts), dtype=bool)
        noncharacters = np.flatnonzero((values[:-1] == 0xEF) & (values[1:] == 0xB7))  # U+FDC0 to U+FDFF
        unsupported[np.searchsorted(offsets, noncharacters, side="right") - 1] = True
        place = 0
        bounds = conversations.text_offsets
        while found := self._pattern.search(values, place):
            owner = np.searchsorted(offsets, found.start(), side="right") - 1
            if found[0] in self._tags:
                row = np.searchsorted(bounds, owner, side="right") - 1
                layout = conversations.layouts[conversations.layout_ids[row]]
                if is_assistants(text_labels(layout)[owner - bounds[row]]):
                    place = found.start() + 1  # another string may begin inside of the tag
                    continue
            unsupported[owner] = True
            place = int(offsets[owner + 1])  # a match across two texts must not hide one that begins in the second
        return unsupported


def _conversation(layout: Layout, texts: Sequence[str]) -> Conversation:
    turns, tools = put_together(layout, texts)
    return Conversation(turns=tuple(turns), tools=tuple(tools))


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
    owners = np.repeat(np.arange(len(bounds)), counts)
    return owners, np.arange(len(owners)) + np.repeat(bounds[:, 0] - (np.cumsum(counts) - counts), counts)


def digests_of(conversations: ConversationColumns) -> list[bytes]:
    """Return `Conversation.digest` of each conversation; those with fields beside their texts are built for it."""
    digests = list(conversations.digests())
    with_fields = [not {*layout} <= {*ROLES, INPUT, PLAIN_TEXT} for layout in conversations.layouts]
    if any(with_fields):
        texts, offsets = conversations.texts.to_pylist(), conversations.text_offsets.tolist()
        for row in np.flatnonzero(np.asarray(with_fields)[conversations.layout_ids]).tolist():
            layout = conversations.layouts[conversations.layout_ids[row]]
            digests[row] = _conversation(layout, texts[offsets[row] : offsets[row + 1]]).digest()
    return digests


def _any_of(strings: set[str]) -> re.Pattern[bytes]:
    """Return a pattern for any of several strings in UTF-8, the longest first."""
    return re.compile(b"|".join(map(re.escape, sorted((one.encode() for one in strings), key=len, reverse=True))))


def text_strings(rendered: RenderedBatch) -> list[tuple[str, list[Span], list[Span]]]:
    """Return each text with its trained spans and its typed control tokens in characters."""
    out = []
    spans, typed = rendered.span_offsets.tolist(), rendered.typed_offsets.tolist()
    for row, (start, end) in enumerate(pairwise(rendered.text_offsets.tolist())):
        raw = rendered.text[start:end].tobytes()
        own_spans = _in_characters(raw, rendered.spans[spans[row] : spans[row + 1]])
        own_typed = _in_characters(raw, rendered.typed[typed[row] : typed[row + 1]])
        out.append((raw.decode(), own_spans, own_typed))
    return out


def _in_characters(raw: bytes, spans: NDArray[np.int64]) -> list[Span]:
    """Turn spans in bytes into spans in characters; `_in_bytes` the other way round."""
    characters = spans if raw.isascii() else np.searchsorted(character_starts(raw), spans)
    return [(start, end) for start, end in characters.tolist()]
