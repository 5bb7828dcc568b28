"""Sentinels: code points that stand for something of ours while a template renders, and are gone afterwards.

A template is a program that treats its texts as it likes, so what must be found again in its output has to travel
through it as characters. These are characters that no text may hold: Unicode's noncharacters.

    U+FDD0, U+FDD1, U+FDD2   around a text of a message (see `markers`)
    U+FDD3                   in a control token that somebody typed, or behind a tag
    U+FDD4, U+FDD5           around what a template marks with `{% generation %}` (see `sandbox`)
    U+FDD6, U+FDD7, U+FDD8   a text that is traced, and what was stripped from it (see `traced_text`)
    U+FDD9                   before a tag that somebody typed
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sft_shards.formats.templates.control_tokens import ControlTokens

MARK_OPEN, MARK_NUMBERED, MARK_CLOSE = "\ufdd0", "\ufdd1", "\ufdd2"
TYPED, TYPED_NEXT = "\ufdd3", "\ufdd9"
GENERATION_START, GENERATION_END = "\ufdd4", "\ufdd5"
GENERATION_MARKS = str.maketrans("", "", GENERATION_START + GENERATION_END)
"""Takes both out of a text (`str.translate`)."""
TRACE_OPEN, TRACE_CLOSE, TRACE_STRIP = "\ufdd6", "\ufdd7", "\ufdd8"
RESERVED = re.compile("[\ufdd0-\ufdef]")
"""The noncharacters. A text that holds one is rejected (`reserved_character`)."""
TYPED_MARK = re.compile(rf"({TYPED}|\\ufdd3)|{TYPED_NEXT}|\\ufdd9")
"""A mark as it is, or as templates write it that escape texts (`tojson(ensure_ascii=True)`, a dict printed whole)."""
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""The keys of a message that hold its reasoning, each the same text."""
OWN_TEXTS = ("content", *REASONING_KEYS)
"""The keys of an assistant's message that hold what it says itself."""


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """A rendering without the marks of typed control tokens."""

    text: str
    typed: tuple[tuple[int, int], ...]
    """Where control tokens stand that somebody typed: spans [start, end) of the text, in its order."""
    removed: tuple[int, ...]
    """Where in the rendering each character of a mark stood, rising."""

    def place(self, position: int) -> int:
        """Return where a position of the rendering is in the text."""
        return position - bisect_left(self.removed, position)


class TypedTokens:
    """Marks control tokens that somebody typed, so that they can be told from those that the template writes.

    A mark breaks the token after its first character: "say <|eot|>" becomes "say <", `TYPED`, "|eot|>". A tag keeps its
    spelling, since templates look for tags in texts; the mark stands behind it, or before it at the end of a text.
    The template sees texts that begin and end, and are escaped, as those without marks would be.

    Args:
        control: the tokens to mark.
    """

    def __init__(self, control: ControlTokens) -> None:
        self._everywhere, self._tags = any_of(control.everywhere), any_of(control.tags)
        self.pattern = any_of(control.all)
        self._longest_tag = max(map(len, control.tags), default=0)

    def hide(self, value: Any) -> Any:
        """Return a copy of a JSON-like value with every control token in its texts and keys marked."""
        return map_texts(value, lambda text: self.pattern.sub(self._marked, text))

    def hide_messages(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return messages with every control token marked; tags in an assistant's own text stay as they are."""
        return [
            {
                key: self._hide_own(value) if _is_own(message, key) else self.hide(value)
                for key, value in message.items()
            }
            for message in messages
        ]

    def _hide_own(self, value: Any) -> Any:
        return map_texts(value, lambda text: self._everywhere.sub(self._marked, text))

    def _marked(self, match: re.Match[str]) -> str:
        token = match[0]
        if not self._tags.fullmatch(token):
            return token[0] + TYPED + token[1:]
        return TYPED_NEXT + token if match.end() == len(match.string) else token + TYPED

    def reveal(self, rendering: str) -> Revealed:
        """Take the marks out of a rendering, and find the control tokens that they were put on."""
        pieces: list[str] = []
        removed: list[int] = []
        marks: list[tuple[int, bool]] = []
        begin = 0
        for match in TYPED_MARK.finditer(rendering):
            pieces.append(rendering[begin : match.start()])
            marks.append((match.start() - len(removed), match[1] is not None))
            removed += range(*match.span())
            begin = match.end()
        text = "".join([*pieces, rendering[begin:]])
        found = {span for place, behind in marks for span in self._spans(text, place, behind)}
        return Revealed(text=text, typed=tuple(sorted(found)), removed=tuple(removed))

    def _spans(self, text: str, place: int, behind: bool) -> list[tuple[int, int]]:
        """Return the tokens that a mark was put on: one, or none where the template cut or changed it."""
        if not behind:
            before = self._tags.match(text, place)
            return [before.span()] if before else []
        around = self._everywhere.match(text, place - 1) if place else None
        if around:
            return [around.span()]
        starts = range(max(0, place - self._longest_tag), place)
        return [(start, place) for start in starts if self._tags.fullmatch(text, start, place)][:1]


def _is_own(message: dict[str, Any], key: str) -> bool:
    return key in OWN_TEXTS and message["role"] == "assistant"


def any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern for any of several tokens, the longest first; without tokens it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of a JSON-like value with every text changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: map_texts(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_texts(item, change) for item in value]
    return value


def all_texts(value: Any) -> str:
    """Return every text of a JSON-like value, keys included, one after the other, with a NUL in between."""
    found: list[str] = []
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            found += filter(lambda key: isinstance(key, str), one)
            rest += one.values()
        elif isinstance(one, (list, tuple)):
            rest += one
    return "\0".join(found)
