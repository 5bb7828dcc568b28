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
from preprocess.composed import is_inert, unsettled

THINK = ("<think>", "</think>")
MOST_SKELETONS = 4096
NONE = -1


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
        self._numbers: dict[Shape, int] = {}
        """The place of a shape's skeleton in the table; `NONE` where it has none."""
        self._table = _Table()
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
        numbers = self._skeletons(plain.shapes)
        if (numbers == NONE).any():
            plain, numbers = _only(plain, numbers, numbers != NONE)
        contents = _contents(plain)
        if contents is None:
            texts = iter(plain.texts)
            sound = [[_is_text(next(texts)) for _ in shape] for shape in plain.shapes]
            plain, numbers = _only(plain, numbers, list(map(all, sound)))
            contents = _contents(plain)
            assert contents is not None, "only texts are left"
        if strange := self._strange(contents):
            plain, numbers = _only(plain, numbers, [at not in strange for at in range(len(plain.shapes))])
            contents = _contents(plain)
            assert contents is not None, "they were texts before"
        return self._table.fill(numbers, contents), plain

    def _skeletons(self, shapes: Sequence[Shape]) -> NDArray[np.int64]:
        """int64[n]: the skeletons of shapes, made where a shape is new."""
        known = self._numbers
        if not known.keys() >= (met := set(shapes)):
            for shape in sorted(met - known.keys()):
                if len(known) < MOST_SKELETONS:
                    skeleton = self._learn(shape)
                    known[shape] = NONE if skeleton is None else self._table.add(skeleton)
        return np.fromiter((known.get(shape, NONE) for shape in shapes), dtype=np.int64, count=len(shapes))

    def _strange(self, contents: Contents) -> set[int]:
        """The conversations with a text that is blank, that holds what might be a noncharacter (the marks of the
        careful way are some), that NFC would change where it must not, or to which the template could give another
        answer than the skeletons have."""
        texts, raw = contents.texts, contents.raw
        found: list[int] = []
        places: list[Any] = []
        if "" in texts or any(map(str.isspace, texts)):
            found += [at for at, text in enumerate(texts) if not text or text.isspace()]
        if self.composes:
            found += unsettled(texts)
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

    def _learn(self, shape: Shape) -> Skeleton | None:
        """Make the skeleton of a shape by rendering one conversation of it with care; None where that fails."""
        plain = [f"x{number}" for number in range(len(shape))]
        try:
            conversation = conversation_of(shape, plain)
            rendering = self.template.render(conversation)
        except RecordError:
            return None
        spans = self.policy.spans(rendering, conversation)
        skeleton = self._tracer.trace(shape, plain, rendering, spans)
        if skeleton is None or rendering.notes or rendering.typed:
            return None
        if self.composes and not all(map(is_inert, skeleton.literals)):
            return None
        self._strips.update(skeleton.strips)
        if not skeleton.absent <= self._forbidden:
            self._forbidden |= skeleton.absent
            self._compile()
        return skeleton


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
    begin_with: frozenset[str]
    """What the texts begin with: the template's first words."""
    sizes: NDArray[np.int64]
    """int64[n]: bytes of each."""
    total: int
    """The sum of the values of the bytes of all."""
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


def _only(plain: Plain, numbers: NDArray[np.int64], keep: Any) -> tuple[Plain, NDArray[np.int64]]:
    """Some of several conversations, with the numbers of their skeletons."""
    bounds = pairwise(_sums(plain.shapes).tolist())
    texts = [text for (a, b), kept in zip(bounds, keep, strict=True) if kept for text in plain.texts[a:b]]
    kept = Plain(list(compress(plain.rows, keep)), list(compress(plain.shapes, keep)), texts)
    return kept, numbers[np.asarray(keep, dtype=bool)]


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


class _Table:
    """Skeletons as arrays, so that a batch is filled by looking up rows."""

    def __init__(self) -> None:
        self._literals: list[tuple[str, ...]] = []
        self._facts = np.empty((0, 4), dtype=np.int64)
        """int64[k, 4]: bytes of the literals, the sum of their values, the first row of its spans, and their number."""
        self._spans = np.empty((0, 4), dtype=np.int64)
        """int64[s, 4]: `Skeleton.spans` of all, one after the other."""

    def add(self, skeleton: Skeleton) -> int:
        """Put in one more; its number."""
        words = "".join(skeleton.literals).encode()
        self._literals.append(skeleton.literals)
        facts = (len(words), sum(words), len(self._spans), len(skeleton.spans))
        self._facts = np.vstack([self._facts, facts])
        self._spans = np.vstack([self._spans, skeleton.spans])
        return len(self._literals) - 1

    def fill(self, numbers: NDArray[np.int64], contents: Contents) -> Texts:
        """Fill skeletons, int64[n], with contents."""
        count, gaps = len(numbers), np.diff(contents.first)
        literals = [self._literals[number] for number in numbers.tolist()]
        filled = 2 * np.arange(len(contents.texts)) + np.repeat(np.arange(count), gaps) + 1
        words = np.empty(2 * len(contents.texts) + count, dtype=object)
        own = np.ones(len(words), dtype=bool)
        own[filled] = False
        words[filled] = contents.texts
        words[own] = list(chain.from_iterable(literals))
        sizes, values, spans, several = self._facts[numbers].T
        owner = np.repeat(np.arange(count), several)
        places = self._spans[np.arange(len(owner)) + np.repeat(spans - np.cumsum(several) + several, several)]
        begins = contents.ends[contents.first]
        ends = contents.ends[contents.first[owner][:, None] + places[:, ::2]]
        return Texts(
            words=words.tolist(),
            pieces=2 * gaps + 1,
            begin_with=frozenset([one[0] for one in literals]),
            sizes=sizes + np.diff(begins),
            total=int(values.sum()) + int(np.frombuffer(contents.raw, dtype=np.uint8).sum(dtype=np.uint64)),
            spans=places[:, 1::2] + ends - begins[owner][:, None],
            owner=owner,
        )
