"""White space in front of the texts of turns: how much of it is the turn's own, kept by the template.

A turn begins with its leading white space exactly where the template writes it. Where white space stands in front of a
text anyway, it could be the template's own, so the conversation is rendered once more without it: for all turns at
once, and where the template does not treat them all alike, for each by itself. What is missing then was the turn's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from sft_shards.formats.errors import RecordError


class LeadingSpace:
    """The leading white space of the turns of one rendering.

    Args:
        text: the rendering.
        messages: the messages that it is of.
        places: by turn, where the text before it ends, and where its own text starts without white space.
        render: renders other messages with the same template.
    """

    def __init__(
        self,
        text: str,
        messages: list[dict[str, Any]],
        places: Mapping[int, tuple[int, int]],
        render: Callable[[list[dict[str, Any]]], str],
    ) -> None:
        self._text, self._messages, self._render = text, messages, render
        self._spaces: dict[int, int] = {}
        """Characters of white space in front of the texts of turns, where there is some."""
        self._starts = {number: start for number, (_, start) in places.items()}
        for number, (left, start) in places.items():
            content = messages[number].get("content") or ""
            space = len(content) - len(content.lstrip())
            if space and left < start and text[start - 1].isspace():
                self._spaces[number] = space
        self._all_kept: bool | None = None
        """Whether the template keeps it in all turns, or in none; None where each has to be tried."""
        if len(self._spaces) > 1:
            with suppress(RecordError):
                found = self._without(self._spaces)
                if found == text:
                    self._all_kept = False
                elif found == self._cut(self._spaces):
                    self._all_kept = True

    def kept(self, number: int) -> int:
        """Return how many characters of white space the template keeps in front of a turn's text."""
        space = self._spaces.get(number, 0)
        if not space or self._all_kept is False:
            return 0
        if self._all_kept:
            return space
        kept = len(self._text) - len(self._without([number]))
        return min(max(kept, 0), space)

    def _cut(self, spaces: Mapping[int, int]) -> str:
        """Return the text without so many characters in front of the texts of turns."""
        pieces, begin = [], 0
        for number in sorted(spaces, key=self._starts.__getitem__):
            start = self._starts[number]
            pieces.append(self._text[begin : start - spaces[number]])
            begin = start
        return "".join(pieces) + self._text[begin:]

    def _without(self, numbers: Collection[int]) -> str:
        """Return the rendering without white space in front of the texts of some turns."""
        return self._render(
            [
                {**message, "content": message["content"].lstrip()} if number in numbers else message
                for number, message in enumerate(self._messages)
            ]
        )
