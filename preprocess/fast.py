"""The way that most records take: no Jinja, no offsets, nothing done for one record that can be done for many.

A record that is nothing but roles and texts, in an order that was seen before, is rendered by filling a skeleton
(`formats.templates.trace`); a batch of renderings is encoded at once, and its masks follow from the byte lengths of
the ids. Wherever one of the conditions of this does not hold, the record takes the careful way in `pipeline`, and a
sample of those that went this way is compared with the careful way's result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.conversation import INPUT, Conversation, Plain, Shape, Turn
from formats.errors import RecordError
from formats.templates import ChatTemplate, Skeleton, Tracer, TrainOn

THINK = ("<think>", "</think>")
MOST_SKELETONS = 4096


class Renderer:
    """Skeletons by shape, each made when its shape is first seen, from what the careful way gave."""

    def __init__(self, template: ChatTemplate, policy: TrainOn) -> None:
        self.template = template
        self.policy = policy
        self._tracer = Tracer(template.source, dict(template.tokens.variables))
        self._skeletons: dict[Shape, Skeleton | None] = {}
        self._forbidden = set(THINK) | (set() if template.allow_control_tokens else set(template.tokens.control))
        self._strips: set[str | None] = set()
        self._compile()

    def _compile(self) -> None:
        words = sorted((word.encode() for word in self._forbidden), key=len, reverse=True)
        self._firsts = sorted({word[:1] for word in words})
        self._pattern = re.compile(b"|".join(map(re.escape, words)))

    def render(self, plain: Plain) -> tuple[Texts, Plain]:
        """The renderings of those of several plain conversations that could be made, and which these are; the others
        have to take the careful way."""
        for shape in set(plain.shapes) - self._skeletons.keys():
            if len(self._skeletons) < MOST_SKELETONS:
                self._learn(shape)
        known = list(map(self._skeletons.get, plain.shapes))
        if None in known:
            plain = _only(plain, [one is not None for one in known])
        contents = _contents(plain)
        if contents is None:
            texts = iter(plain.texts)
            sound = [[_is_text(next(texts)) for _ in shape] for shape in plain.shapes]
            plain = _only(plain, list(map(all, sound)))
            contents = _contents(plain)
            assert contents is not None, "only texts are left"
        if strange := self._strange(contents):
            plain = _only(plain, [at not in strange for at in range(len(plain.shapes))])
            contents = _contents(plain)
            assert contents is not None, "they were texts before"
        return _texts([self._skeletons[shape] for shape in plain.shapes], contents), plain

    def _strange(self, contents: Contents) -> set[int]:
        """The conversations with a text that is blank, that holds what might be a noncharacter (the marks of the
        careful way are some), or to which the template could give another answer than the skeletons have."""
        texts, raw = contents.texts, contents.raw
        found: list[int] = []
        places: list[Any] = []
        if "" in texts or any(map(str.isspace, texts)):
            found += [at for at, text in enumerate(texts) if not text or text.isspace()]
        for chars in self._strips:
            if texts != [text.strip(chars) for text in texts]:
                found += [at for at, text in enumerate(texts) if text.strip(chars) != text]
        values = np.frombuffer(raw, dtype=np.uint8)
        places.append(np.flatnonzero((values[:-1] == 0xEF) & (values[1:] == 0xB7)))  # U+FDC0 to U+FDFF
        if any(first in raw for first in self._firsts):
            places.append([match.start() for match in self._pattern.finditer(raw)])
        number = np.searchsorted(contents.first, found, side="right") - 1
        inside = np.searchsorted(contents.ends[contents.first], np.concatenate(places), side="right") - 1
        return set(number.tolist()) | set(inside.tolist())

    def _learn(self, shape: Shape) -> None:
        """Make the skeleton of a shape by rendering one conversation of it with care; None where that fails."""
        self._skeletons[shape] = None
        plain = [f"x{number}" for number in range(len(shape))]
        try:
            conversation = conversation_of(shape, plain)
            rendering = self.template.render(conversation)
        except RecordError:
            return
        spans = self.policy.spans(rendering, conversation)
        skeleton = self._tracer.trace(shape, plain, rendering, spans)
        if skeleton is None or rendering.notes or rendering.typed:
            return
        self._strips.update(skeleton.strips)
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

    words: list[str]
    """All of them in pieces: the template's words and, between them, the contents."""
    pieces: NDArray[np.int64]
    """int64[n]: pieces of each."""
    contents: list[str]
    begin_with: frozenset[str]
    """What the texts begin with: the template's first words."""
    sizes: NDArray[np.int64]
    """int64[n]: bytes of each."""
    sums: NDArray[np.uint64]
    """uint64[n]: the sum of the values of the bytes of each."""
    spans: NDArray[np.int64]
    """int64[s, 2]: [start, end) in bytes of their own text; rising, and apart, within a text."""
    owner: NDArray[np.int64]
    """int64[s], rising: the text that a span is of."""

    @cached_property
    def texts(self) -> list[str]:
        """Each as a text of its own."""
        ends = np.cumsum(self.pieces).tolist()
        return ["".join(self.words[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]


class Contents(NamedTuple):
    """The texts of conversations, one after the other, and in UTF-8."""

    texts: list[str]
    first: NDArray[np.int64]
    """int64[n + 1]: the first text of each conversation, and the number of all."""
    raw: bytes
    ends: NDArray[np.int64]
    """int64[texts + 1]: where each text begins in `raw`, and its end."""


def _contents(plain: Plain) -> Contents | None:
    """The texts of conversations; None if one of them is no text, or has half of a surrogate pair."""
    try:
        encoded = list(map(str.encode, plain.texts))
    except (TypeError, UnicodeEncodeError):
        return None
    return Contents(plain.texts, _sums(plain.shapes), b"".join(encoded), _sums(encoded))


def _only(plain: Plain, keep: Sequence[bool]) -> Plain:
    """Some of several conversations."""
    bounds = pairwise(_sums(plain.shapes).tolist())
    texts = [text for (a, b), kept in zip(bounds, keep, strict=True) if kept for text in plain.texts[a:b]]
    return Plain(list(compress(plain.rows, keep)), list(compress(plain.shapes, keep)), texts)


def _is_text(text: Any) -> bool:
    try:
        return type(text) is str and text.encode() is not None
    except UnicodeEncodeError:
        return False


def _sums(sized: Sequence[Sized]) -> NDArray[np.int64]:
    """int64[n + 1]: the sums of the sizes before each, and of all."""
    out = np.zeros(len(sized) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, sized), dtype=np.int64, count=len(sized)), out=out[1:])
    return out


def _texts(skeletons: Sequence[Any], contents: Contents) -> Texts:
    """Skeletons, filled. Their own words are summed once for all, those of contents over the whole batch."""
    count, gaps = len(skeletons), np.diff(contents.first)
    filled = 2 * np.arange(len(contents.texts)) + np.repeat(np.arange(count), gaps) + 1
    words = np.empty(2 * len(contents.texts) + count, dtype=object)
    own = np.ones(len(words), dtype=bool)
    own[filled] = False
    words[filled] = contents.texts
    words[own] = list(chain.from_iterable([one.literals for one in skeletons]))
    facts = [(len(one.words), one.value, len(one.spans)) for one in skeletons]
    sizes, sums, spans = np.asarray(facts, dtype=np.int64).reshape(-1, 3).T
    owner = np.repeat(np.arange(count), spans)
    places = np.concatenate([np.empty((0, 4), dtype=np.int64), *[one.spans for one in skeletons]])
    first = contents.first[owner][:, None]
    begins = contents.ends[contents.first]
    sums = sums.astype(np.uint64)
    if count:
        sums += np.add.reduceat(np.frombuffer(contents.raw, dtype=np.uint8), begins[:-1], dtype=np.uint64)
    return Texts(
        words=words.tolist(),
        pieces=2 * gaps + 1,
        contents=contents.texts,
        begin_with=frozenset([one.literals[0] for one in skeletons]),
        sizes=sizes + np.diff(begins),
        sums=sums,
        spans=places[:, 1::2] + contents.ends[first + places[:, ::2]] - contents.ends[first],
        owner=owner,
    )
