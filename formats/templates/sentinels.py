"""Invisible characters that stand for something while a template renders.

Control tokens that somebody typed are held apart by them: each is replaced by a run of its own length, so that every
position stays what it was, rendered, and put back. What the template wrote itself can then be told from what was
typed, whatever the template does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sft_shards.formats.errors import RecordError

OPEN, AFTER, CLOSE = "\ufdd0", "\ufdd1", "\ufdd2"
FILL = "\ufdd3"
GENERATION_START, GENERATION_END = "\ufdd4", "\ufdd5"
"""Noncharacters that stand around what a template marks with `{% generation %}` until they are taken out again."""
FIRST_STAND_IN = 0xF0000
RESERVED = re.compile("[\ufdd0-\ufdef]")


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a JSON-like value with every text changed, keys left as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: map_texts(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_texts(item, change) for item in value]
    return value


def all_texts(value: Any) -> str:
    """Every text of a JSON-like value, one after the other, with a NUL in between."""
    found: list[str] = []

    def keep(text: str) -> str:
        found.append(text)
        return text

    map_texts(value, keep)
    return "\0".join(found)


class StandIns:
    """Replaces typed control tokens by runs of equal length, and finds them again.

    A run is one character of a private-use plane that says which token, then `FILL` up to the token's length.
    """

    def __init__(self, control_tokens: Sequence[str]) -> None:
        self.tokens = sorted(control_tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.tokens)) or r"(?!)")
        self._number = {token: number for number, token in enumerate(self.tokens)}
        self._run = re.compile(f"([\U000f0000-\U000ffffd]){FILL}*")

    def hide(self, value: Any) -> Any:
        """A copy of a JSON-like value with every typed control token replaced."""

        def change(text: str) -> str:
            if self._run.search(text):
                raise RecordError("reserved_character", "the text holds both control tokens and private-use characters")
            return self.pattern.sub(self._stand_in, text)

        return map_texts(value, change)

    def _stand_in(self, match: re.Match[str]) -> str:
        return chr(FIRST_STAND_IN + self._number[match[0]]) + FILL * (len(match[0]) - 1)

    def reveal(self, text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The text with the tokens put back, and the spans [start, end) at which they stand."""
        spans = []

        def change(match: re.Match[str]) -> str:
            token = self.tokens[ord(match[1]) - FIRST_STAND_IN]
            if len(match[0]) != len(token):
                raise RecordError(
                    "template_error", "the template takes texts apart inside a control token that was typed"
                )
            spans.append(match.span())
            return token

        return self._run.sub(change, text), tuple(spans)
