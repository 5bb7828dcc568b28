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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.conversation import INPUT, Conversation, Shape, Turn
from formats.errors import RecordError
from formats.templates import ChatTemplate, Skeleton, Tracer, TrainOn
from preprocess.lengths import ByteLengths
from preprocess.token_engine import Flat

NONCHARACTER = b"\xef\xb7"
"""How every code point from U+FDC0 to U+FDFF begins in UTF-8; the marks of the careful way are among them."""
THINK = ("<think>", "</think>")
MOST_SKELETONS = 4096


class Filled(NamedTuple):
    """A rendering made from a skeleton."""

    text: str
    spans: list[tuple[int, int]]
    """Trained spans, [start, end) in characters."""


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
        total = 0
        before = [0]
        for literal, text in zip(skeleton.literal_sizes, texts, strict=False):  # there is one literal more
            total += literal + len(text)
            before.append(total)
        return Filled(skeleton.text(texts), [(before[a] + b, before[c] + d) for a, b, c, d in skeleton.spans])

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


def joined_bytes(filled: Sequence[Filled]) -> bytes | None:
    """All texts in UTF-8, one after the other; None if one of them is not ordinary."""
    text = "".join([one.text for one in filled])
    return text.encode() if text.isascii() or is_ordinary(text) else None


def masks(flat: Flat, filled: Sequence[Filled], raw: bytes, table: ByteLengths, *, train_straddling: bool) -> Masked:
    """The loss masks of encoded renderings, by `token_mask`'s rule in bytes.

    Args:
        raw: the texts in UTF-8, as `joined_bytes` gives them; no text is empty.
    """
    count = len(filled)
    starts, stops = flat.bounds[:-1], flat.bounds[1:]
    lengths, sums = table.of(flat.ids, starts)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    edge = np.concatenate([[0], ends])
    base = edge[starts]
    view = np.frombuffer(raw, dtype=np.uint8)
    characters = np.cumsum([0, *(len(one.text) for one in filled)])
    owner = np.repeat(np.arange(count), [len(one.spans) for one in filled])
    bounds = np.asarray([span for one in filled for span in one.spans], dtype=np.int64).reshape(-1, 2)
    bounds += characters[owner][:, None]
    borders = characters
    if len(raw) != characters[-1]:  # places of characters become places of bytes: where a byte begins one
        places = np.append(np.flatnonzero((view & 0xC0) != 0x80), len(raw))
        bounds, borders = places[bounds], places[characters]
    bounds += (base - borders[:-1])[owner][:, None]
    sizes = np.diff(borders)
    values = np.add.reduceat(view, borders[:-1], dtype=np.int64)
    totals = np.concatenate([[0], np.cumsum(sums)])
    sound = (edge[stops] - base == sizes) & (totals[stops] - totals[starts] == values)
    if table.composes and len(raw) != characters[-1]:
        for at, one in enumerate(filled):
            if not one.text.isascii() and not unicodedata.is_normalized("NFC", one.text):
                sound[at] = False
    left = np.minimum(np.searchsorted(ends, bounds[:, 0], "right"), np.searchsorted(begins, bounds[:, 0], "left"))
    right = np.searchsorted(begins, bounds[:, 1], "left")
    left, right = (np.clip(side, starts[owner], stops[owner]) for side in (left, right))
    change = np.bincount(left, minlength=len(flat.ids) + 1) - np.bincount(right, minlength=len(flat.ids) + 1)
    loss_mask = np.cumsum(change[:-1]).astype(np.uint8)
    inside = np.minimum(left, max(len(flat.ids) - 1, 0))
    across = (left < right) & (begins[inside] < bounds[:, 0]) & (ends[inside] > bounds[:, 0])
    if not train_straddling:
        loss_mask[inside[across]] = 0
    return Masked(loss_mask=loss_mask, straddling=np.bincount(owner[across], minlength=count), sound=sound)
