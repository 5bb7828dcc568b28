"""The way that most records take: no Jinja, no offsets, nothing done for one record that can be done for many.

A record that is nothing but roles and texts, in an order that was seen before, is rendered by filling a skeleton
(`formats.templates.trace`); a batch of renderings is encoded at once, and its masks follow from the byte lengths of
the ids. Wherever one of the conditions of this does not hold, the record takes the careful way in `pipeline`, and a
sample of those that went this way is compared with the careful way's result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.conversation import INPUT, Conversation, Shape, Turn
from formats.errors import RecordError
from formats.templates import ChatTemplate, Skeleton, Tracer, TrainOn
from preprocess.lengths import ByteLengths, pack, unpacked_lengths
from preprocess.token_engine import Flat

NONCHARACTER = b"\xef\xb7"
"""How every code point from U+FDC0 to U+FDFF begins in UTF-8; the marks of the careful way are among them."""
THINK = ("<think>", "</think>")
MOST_SKELETONS = 4096


class Filled(NamedTuple):
    """A rendering made from a skeleton."""

    text: str
    skeleton: Skeleton
    contents: Sequence[str]
    """What stands in its gaps."""


class Renderer:
    """Skeletons by shape, each made when its shape is first seen, from what the careful way gave."""

    def __init__(self, template: ChatTemplate, policy: TrainOn) -> None:
        self.policy = policy
        self._tracer = Tracer(template.source, dict(template.tokens.variables))
        self._skeletons: dict[Shape, Skeleton | None] = {}
        self._forbidden = set(THINK) | (set() if template.allow_control_tokens else set(template.tokens.control))
        self._compile()

    def _compile(self) -> None:
        words = sorted(self._forbidden, key=len, reverse=True)
        self._firsts = sorted({word[0] for word in words})
        self._pattern = re.compile("|".join(map(re.escape, words)))

    def fill(self, shape: Shape, texts: Sequence[str]) -> Filled | None:
        """The rendering of a plain conversation, or None where it has to take the careful way."""
        skeleton = self._skeletons.get(shape)
        if skeleton is None or "" in texts:
            return None
        joined = "".join(texts)
        for first in self._firsts:
            if first in joined and self._pattern.search(joined):
                return None
        for chars in skeleton.strips:
            for text in texts:
                if len(text.strip(chars)) != len(text):
                    return None
        return Filled(skeleton.text(texts), skeleton, texts)

    def wants(self, shape: Shape) -> bool:
        """Whether a shape was not tried yet."""
        return shape not in self._skeletons and len(self._skeletons) < MOST_SKELETONS

    def learn(self, shape: Shape, texts: Sequence[str], template: ChatTemplate) -> None:
        """Make the skeleton of a shape by rendering one conversation of it with care; None where that fails."""
        self._skeletons[shape] = None
        plain = [f"x{number}" for number in range(len(texts))]
        try:
            conversation = conversation_of(shape, plain)
            rendering = template.render(conversation)
        except RecordError:
            return
        spans = self.policy.spans(rendering, conversation)
        skeleton = self._tracer.trace(shape, plain, rendering, spans)
        if skeleton is None or rendering.notes or rendering.typed:
            return
        if not skeleton.absent <= self._forbidden:
            self._forbidden |= skeleton.absent
            self._compile()
        self._skeletons[shape] = skeleton


def conversation_of(shape: Shape, texts: Sequence[str]) -> Conversation:
    """The conversation that is plain in this way."""
    turns: list[Turn] = []
    for role, text in zip(shape, texts, strict=True):
        if role == INPUT:
            turns[-1] = Turn(role=turns[-1].role, content=turns[-1].content, context=text)
        else:
            turns.append(Turn(role=role, content=text))
    return Conversation(turns=tuple(turns))


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Renderings in UTF-8, with their trained spans."""

    texts: list[str]
    raw: bytes
    """All of them, one after the other."""
    sizes: NDArray[np.int64]
    """int64[n]: bytes of each."""
    spans: NDArray[np.int64]
    """int64[s, 2]: [start, end) in bytes of their own text; rising, and apart, within a text."""
    owner: NDArray[np.int64]
    """int64[s], rising: the text that a span is of."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Masks of a batch of filled renderings."""

    loss_mask: NDArray[np.uint8]
    """u8[T]."""
    straddling: NDArray[np.int64]
    """int64[n]."""
    sound: NDArray[np.bool_]
    """bool[n]: the ids stand for the bytes of the text; where not, the mask means nothing."""


def is_ordinary(text: str) -> bool:
    """Whether a text has neither halves of surrogate pairs nor what might be a noncharacter."""
    try:
        return NONCHARACTER not in text.encode()
    except UnicodeEncodeError:
        return False


def in_bytes(filled: Sequence[Filled]) -> Texts | None:
    """Renderings and their trained spans in UTF-8; None if one of them is not ordinary."""
    texts = [one.text for one in filled]
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:
        return None
    raw = b"".join(encoded)
    if NONCHARACTER in raw:
        return None
    sizes = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    alike: dict[int, list[int]] = {}
    for at, one in enumerate(filled):
        alike.setdefault(id(one.skeleton), []).append(at)
    found = [(rows, _spans([filled[at] for at in rows])) for rows in alike.values()]
    owner = np.concatenate([np.empty(0, np.int64), *(np.repeat(rows, one.shape[1]) for rows, one in found)])
    spans = np.concatenate([np.empty((0, 2), np.int64), *(one.reshape(-1, 2) for _, one in found)])
    order = np.argsort(owner, kind="stable")
    return Texts(texts=texts, raw=raw, sizes=sizes, spans=spans[order], owner=owner[order])


def _spans(filled: Sequence[Filled]) -> NDArray[np.int64]:
    """int64[n, s, 2], the trained spans in bytes of renderings of one skeleton."""
    skeleton = filled[0].skeleton
    gaps = len(skeleton.literals) - 1
    contents = chain.from_iterable([one.contents for one in filled])
    sizes = [len(text) if text.isascii() else len(text.encode()) for text in contents]
    widths = np.fromiter(sizes, np.int64, len(sizes)).reshape((len(filled), gaps))
    before = np.zeros((len(filled), gaps + 1), dtype=np.int64)
    np.cumsum(widths + skeleton.literal_bytes[:-1], axis=1, out=before[:, 1:])
    return before[:, skeleton.span_gaps] + skeleton.span_bytes


def masks(flat: Flat, texts: Texts, table: ByteLengths, *, train_straddling: bool) -> Masked:
    """The loss masks of encoded renderings, by `token_mask`'s rule in bytes. No text is empty."""
    count = len(texts.sizes)
    starts, stops = flat.bounds[:-1], flat.bounds[1:]
    edges = table.edges(flat.ids, starts)
    ends = np.cumsum(texts.sizes)
    values = np.add.reduceat(np.frombuffer(texts.raw, dtype=np.uint8), ends - texts.sizes, dtype=np.uint64)
    sound = edges[stops] - edges[starts] == pack(texts.sizes.astype(np.uint64), values)
    if table.composes:
        for at, text in enumerate(texts.texts):
            if not text.isascii() and not unicodedata.is_normalized("NFC", text):
                sound[at] = False
    places = unpacked_lengths(edges)
    owner = texts.owner
    spans = (texts.spans + places[starts[owner]][:, None]).astype(np.uint32)
    first, last = np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
    left = np.minimum(np.searchsorted(places[1:], first, "right"), np.searchsorted(places[:-1], first, "left"))
    right = np.searchsorted(places[:-1], last, "left")
    left, right = (np.clip(side, starts[owner], stops[owner]) for side in (left, right))
    turns = np.zeros(2 * len(owner) + 2, dtype=np.int64)
    turns[1:-1:2], turns[2:-1:2], turns[-1] = left, right, len(flat.ids)
    runs = np.diff(np.maximum.accumulate(turns))  # a token that reaches into two spans is trained once
    loss_mask = np.repeat(np.resize(np.array([0, 1], dtype=np.uint8), len(runs)), runs)
    inside = np.minimum(left, max(len(flat.ids) - 1, 0))
    across = (left < right) & (places[inside] < first) & (places[inside + 1] > first)
    if not train_straddling:
        loss_mask[inside[across]] = 0
    return Masked(loss_mask=loss_mask, straddling=np.bincount(owner[across], minlength=count), sound=sound)
