"""The way that most records take: no Jinja, no offsets, nothing done for one record that can be done for many.

A record that is nothing but roles and texts, in an order that was seen before, is rendered by filling a skeleton
(`formats.templates.skeleton`); a batch of renderings is encoded at once, and its masks follow from the byte lengths of
the ids. Wherever one of the conditions of this does not hold, the record takes the careful way in `pipeline`, and a
sample of those that went this way is compared with the careful way's result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import RoleSequence, TextOnlyConversations, prefix_sums, utf8_buffers
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.arrow_columns import cut_out, taken
from sft_shards.formats.templates import ChatTemplate, Skeleton, Tracer, TrainOn, Trim
from sft_shards.preprocess.pipeline.whitespace import may_begin_with_space, may_end_with_space
from sft_shards.preprocess.tokenizer.nfc import is_inert, unsettled

if TYPE_CHECKING:
    import pyarrow as pa

THINK = ("<think>", "</think>")
MOST_SKELETONS = 4096
NONE = -1
NO_SPANS = np.empty((0, 4), dtype=np.int64)


class Renderer:
    """Skeletons by shape, each made when its shape is first seen, from what the careful way gave.

    Args:
        composes: only make texts that NFC leaves as they are (for a tokenizer that brings them to it).
    """

    def __init__(self, template: ChatTemplate, policy: TrainOn, *, composes: bool = False) -> None:
        self.template = template
        self.policy = policy
        self.composes = composes
        self._tracer = Tracer(template.source, dict(template.tokens.variables))
        self._numbers: dict[RoleSequence, int] = {}
        """The place of a shape's skeleton in the table; `NONE` where it has none."""
        self._table = _Table()
        self._forbidden = set(THINK) | (set() if template.allow_control_tokens else set(template.tokens.control))
        self._compile()

    def _compile(self) -> None:
        words = sorted((word.encode() for word in self._forbidden), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, words)))

    def render(self, plain: TextOnlyConversations) -> tuple[Texts, TextOnlyConversations]:
        """The renderings of those of several plain conversations that could be made, and which these are; the others
        have to take the careful way."""
        numbers = self._skeletons(plain)
        keep = numbers != NONE
        plain, numbers = plain.filter(keep), numbers[keep]
        strange = self._strange(plain.texts)
        if strange.any():
            keep = ~np.logical_or.reduceat(strange, plain.text_offsets[:-1])
            plain, numbers = plain.filter(keep), numbers[keep]
        return self._table.fill(numbers, plain), plain

    def _skeletons(self, plain: TextOnlyConversations) -> NDArray[np.int64]:
        """int64[n]: the skeletons of conversations, made where a shape is new."""
        known = self._numbers
        if new := sorted({*plain.role_sequences} - known.keys())[: MOST_SKELETONS - len(known)]:
            learnt = {shape: self._learn(shape) for shape in new}
            made = {shape: skeleton for shape, skeleton in learnt.items() if skeleton is not None}
            known |= dict.fromkeys(new, NONE) | dict(zip(made, self._table.add(made.values()), strict=True))
        of_kinds = np.asarray([known.get(shape, NONE) for shape in plain.role_sequences], dtype=np.int64)
        return of_kinds[plain.sequence_ids]

    def _strange(self, texts: pa.StringArray) -> NDArray[np.bool_]:
        """bool[t]: the texts that are blank, that hold what might be a noncharacter (the marks of the careful way are
        some), that NFC would change where it must not, or to which the template could give another answer than the
        skeletons have."""
        values, ends = utf8_buffers(texts)
        strange = np.asarray(np.diff(ends) == 0)
        for at in np.flatnonzero(may_begin_with_space(values, ends)).tolist():
            strange[at] |= not values[ends[at] : ends[at + 1]].tobytes().decode().strip()
        if self.composes:
            strange[unsettled(values, ends)] = True
        odd = np.flatnonzero((values[:-1] == 0xEF) & (values[1:] == 0xB7))  # U+FDC0 to U+FDFF
        strange[np.searchsorted(ends, odd, side="right") - 1] = True
        place = 0
        while found := self._pattern.search(values, place):
            owner = np.searchsorted(ends, found.start(), side="right") - 1
            strange[owner] = True
            place = int(ends[owner + 1])  # what reaches into the next text must not hide what begins there
        return strange

    def _learn(self, shape: RoleSequence) -> Skeleton | None:
        """Make the skeleton of a shape by rendering one conversation of it with care; None where that fails."""
        plain = [f"x{number}" for number in range(len(shape))]
        try:
            conversation = Conversation.from_text_only(shape, plain)
            rendering = self.template.render(conversation)
        except RecordError:
            return None
        spans = self.policy.spans(rendering, conversation)
        skeleton = self._tracer.trace(shape, plain, rendering, spans)
        if skeleton is None or rendering.notes or rendering.typed:
            return None
        if self.composes and not is_inert("".join(skeleton.literals)):
            return None
        if not skeleton.absent <= self._forbidden:
            self._forbidden |= skeleton.absent
            self._compile()
        return skeleton


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Renderings in UTF-8, with their trained spans."""

    values: NDArray[np.uint8]
    """u8[B]: all of them, one after the other."""
    ends: NDArray[np.int64]
    """int64[n + 1]: where each begins in `values`, with the end of the last."""
    begin_with: frozenset[str]
    """What the texts begin with: the template's first words."""
    spans: NDArray[np.int64]
    """int64[s, 2]: [start, end) in bytes of their own text; rising, and apart, within a text."""
    owner: NDArray[np.int64]
    """int64[s], rising: the text that a span is of."""

    @property
    def whole(self) -> str:
        """All as one text."""
        return str(self.values.data, "utf-8")

    @property
    def texts(self) -> list[str]:
        """Each as a text of its own."""
        return [str(self.values[begin:end].data, "utf-8") for begin, end in pairwise(self.ends.tolist())]


class _Table:
    """Skeletons as arrays, so that a batch is filled by looking up rows."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._skeletons: list[Skeleton] = []
        self._facts = np.empty((0, 3), dtype=np.int64)
        """int64[k, 3]: of each the first of its literals, the first of its spans, and how many spans it has."""
        self._spans = NO_SPANS
        """int64[s, 4]: `Skeleton.spans` of all, one after the other."""
        self._words = pa.array([], pa.string())
        """The literals of all."""
        self._trims: list[tuple[Trim, ...]] = []
        """Behind each of the literals, what is taken off the text that follows."""
        self._trimming = np.zeros(0, dtype=bool)
        """bool[w]: whether there is anything."""

    def add(self, skeletons: Iterable[Skeleton]) -> range:
        """Put in some more; their numbers."""
        import pyarrow as pa

        before = len(self._skeletons)
        self._skeletons += skeletons
        sizes = [(len(one.literals), len(one.spans)) for one in self._skeletons]
        words, spans = np.asarray(sizes, dtype=np.int64).reshape(-1, 2).T
        self._facts = np.stack([prefix_sums(words)[:-1], prefix_sums(spans)[:-1], spans], axis=1)
        self._spans = np.concatenate([NO_SPANS, *(one.spans for one in self._skeletons)])
        self._words = pa.array(chain.from_iterable(one.literals for one in self._skeletons), pa.string())
        self._trims = [trims for one in self._skeletons for trims in (*one.trims, ())]
        self._trimming = np.asarray(list(map(bool, self._trims)), dtype=bool)
        return range(before, len(self._skeletons))

    def fill(self, numbers: NDArray[np.int64], plain: TextOnlyConversations) -> Texts:
        """Fill skeletons, int64[n], with the texts of conversations."""
        count, firsts = len(numbers), plain.text_offsets
        gaps, texts = np.diff(firsts), np.arange(len(plain.texts))
        words, spans, several = self._facts[numbers].T
        ends = prefix_sums(2 * gaps + 1)  # of each in pieces: literals and, between them, the texts
        places = np.empty(ends[-1], dtype=np.int64)
        filled = 2 * texts + np.repeat(np.arange(count), gaps) + 1
        before = texts + np.repeat(words - firsts[:-1], gaps)
        contents = self._trimmed(plain.texts, before)
        places[filled] = len(self._words) + texts
        places[filled - 1] = before
        places[ends[1:] - 1] = words + gaps
        values, bounds = utf8_buffers(taken([self._words, contents], places))
        _, inner = utf8_buffers(contents)
        owner = np.repeat(np.arange(count), several)
        trained = self._spans[np.arange(len(owner)) + np.repeat(spans - prefix_sums(several)[:-1], several)]
        preceding = inner[firsts[owner][:, None] + trained[:, ::2]] - inner[firsts[owner]][:, None]
        return Texts(
            values=values,
            ends=bounds[ends].astype(np.int64),
            begin_with=frozenset([self._skeletons[number].literals[0] for number in np.unique(numbers).tolist()]),
            spans=trained[:, 1::2] + preceding,
            owner=owner,
        )

    def _trimmed(self, texts: pa.StringArray, words: NDArray[np.int64]) -> pa.StringArray:
        """Texts, of which none is blank, without what is taken off them, int64[t] being the literals before them."""
        trimming = self._trimming[words]
        if not trimming.any():
            return texts
        values, ends = utf8_buffers(texts)
        begins, stops = ends[:-1].copy(), ends[1:].copy()
        spaced = may_begin_with_space(values, ends) | may_end_with_space(values, ends)
        for at in np.flatnonzero(trimming & spaced).tolist():
            left = text = values[begins[at] : stops[at]].tobytes().decode()
            for method, chars in self._trims[words[at]]:
                left = getattr(left, method)(chars)
            begins[at] += len(
                text[: text.index(left)].encode()
            )  # what was taken off on the left has none of its letters
            stops[at] = begins[at] + len(left.encode())
        return cut_out(values, begins, stops)
