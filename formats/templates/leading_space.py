"""White space in front of the texts of turns that have no header: whether the template keeps it.

A turn begins with its leading white space exactly where the template writes it. Where white space stands in front of a
text anyway, it could be the template's own, so the conversation is rendered once more with other white space there: for
all turns at once, and where the template does not treat them all alike, for each by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

from sft_shards.formats.errors import RecordError

OTHER_SPACE = " \n"
"""White space that no template writes in front of a text by itself."""


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
        self._spaces: dict[int, str] = {}
        for number, (left, start) in places.items():
            content = messages[number].get("content") or ""
            space = content[: len(content) - len(content.lstrip())]
            if space and text.endswith(space, left, start):
                self._spaces[number] = space
        self._all_kept: bool | None = None
        """Whether the template keeps it in all turns, or in none; None where each has to be tried."""
        if len(self._spaces) > 1:
            begins = sorted(places[number][1] - len(space) for number, space in self._spaces.items())
            pieces = [text[start:end] for start, end in pairwise([0, *begins, len(text)])]
            with suppress(RecordError):
                found = self._render_with_other(self._spaces)
                kept = True if found == OTHER_SPACE.join(pieces) else None
                self._all_kept = False if found == text else kept

    def kept(self, number: int) -> int:
        """Return how many characters of white space the template keeps in front of a turn's text."""
        if number not in self._spaces or self._all_kept is False:
            return 0
        kept = self._all_kept or self._render_with_other([number]) != self._text
        return len(self._spaces[number]) if kept else 0

    def _render_with_other(self, numbers: Collection[int]) -> str:
        """Return the rendering with more white space in front of the texts of some turns."""
        return self._render(
            [
                {**message, "content": OTHER_SPACE + message["content"]} if number in numbers else message
                for number, message in enumerate(self._messages)
            ]
        )
