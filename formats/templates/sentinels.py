"""Sentinels: code points that stand for something of ours while a template renders, and are gone afterwards.

A template is a program that treats its texts as it likes, so what must be found again in its output has to travel
through it as characters. These are characters that no text may hold: Unicode's noncharacters, and, in texts that hold a
control token, the private-use plane from U+F0000 on.

    U+FDD0, U+FDD1, U+FDD2   around a text of a message (see `markers`)
    U+FDD3                   fills the run that stands for a typed control token up to the token's length
    U+FDD4, U+FDD5           around what a template marks with `{% generation %}` (see `sandbox`)
    U+FDD6, U+FDD7, U+FDD8   a text that is traced, and what was stripped from it (see `traced_text`)
    U+F0000 …                the control token of that number
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sft_shards.formats.errors import RecordError

MARK_OPEN, MARK_NUMBERED, MARK_CLOSE = "\ufdd0", "\ufdd1", "\ufdd2"
FILL = "\ufdd3"
GENERATION_START, GENERATION_END = "\ufdd4", "\ufdd5"
TRACE_OPEN, TRACE_CLOSE, TRACE_STRIP = "\ufdd6", "\ufdd7", "\ufdd8"
FIRST_CONTROL_TOKEN = 0xF0000
RESERVED = re.compile("[\ufdd0-\ufdef]")
"""The noncharacters. A text that holds one is rejected (`reserved_character`)."""


class ControlTokenSentinels:
    """Hides control tokens that somebody typed, so that they can be told from those that the template writes.

    Each is replaced by a run of as many characters, so that all positions stay: "say <|eot|>" becomes "say ", the
    character that says which token it is, and six times `FILL`. After rendering the runs are put back, and their
    positions are known.

    Args:
        control_tokens: the tokens to hide.
    """

    def __init__(self, control_tokens: Sequence[str]) -> None:
        self.tokens = sorted(control_tokens, key=len, reverse=True)
        self.pattern = any_of(control_tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        self._run = re.compile(f"([\U000f0000-\U000ffffd]){FILL}*")

    def hide(self, value: Any) -> Any:
        """Return a copy of a JSON-like value with every control token in its texts replaced.

        Raises:
            RecordError: `reserved_character`, a text holds private-use characters as well.
        """

        if self._run.search(all_texts(value)):
            raise RecordError("reserved_character", "the text holds both control tokens and private-use characters")
        return map_texts(value, lambda text: self.pattern.sub(self._sentinel, text))

    def _sentinel(self, match: re.Match[str]) -> str:
        return chr(FIRST_CONTROL_TOKEN + self._numbers[match[0]]) + FILL * (len(match[0]) - 1)

    def reveal(self, text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return the text with the control tokens put back, and the spans [start, end) at which they stand.

        Raises:
            RecordError: `template_error`, the template cut a token in two.
        """
        spans = []

        def change(match: re.Match[str]) -> str:
            token = self.tokens[ord(match[1]) - FIRST_CONTROL_TOKEN]
            if len(match[0]) != len(token):
                raise RecordError(
                    "template_error", "the template takes texts apart inside a control token that was typed"
                )
            spans.append(match.span())
            return token

        return self._run.sub(change, text), tuple(spans)


def any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern for any of several tokens, the longest first; without tokens it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of a JSON-like value with every text changed; keys stay as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: map_texts(item, change) for key, item in value.items()}
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
