"""Anchors: where the texts of messages stand in a rendering, found by message and by position.

A conversation of a megabyte can have tens of thousands of short turns. Whatever is asked about one turn must not walk
through all the others, so positions are searched by bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

CONTENT, REASONING, CALL = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """Where a text of a message stands in the rendering, [start, end) in characters."""

    message: int
    """Number of the message in the conversation."""
    kind: int
    """`CONTENT`, `REASONING` or `CALL` (the name of a tool that is called, or the id of the call)."""
    start: int
    end: int


class Anchors:
    """The anchors of one rendering.

    Args:
        found: in the order of the text, not overlapping.
        complete: whether the texts of all messages were marked, or those of assistants alone.
    """

    def __init__(self, found: Sequence[Anchor], *, complete: bool = True) -> None:
        self.complete = complete
        self._starts = [anchor.start for anchor in found]
        self._ends = [anchor.end for anchor in found]
        self._messages = [anchor.message for anchor in found]
        self._of: dict[int, list[Anchor]] = {}
        for anchor in found:
            self._of.setdefault(anchor.message, []).append(anchor)

    def of(self, message: int) -> Sequence[Anchor]:
        """Return the anchors of a message, in the order of the text."""
        return self._of.get(message, ())

    def end_before(self, position: int) -> int:
        """Return where the last text ends that ends at a position or before it; 0 if there is none."""
        at = bisect_right(self._ends, position)
        return self._ends[at - 1] if at else 0

    def next_start(self, message: int, position: int) -> int | None:
        """Return where the first text of another message starts at a position or behind it; None if there is none."""
        at = bisect_left(self._starts, position)
        while at < len(self._starts) and self._messages[at] == message:
            at += 1
        return self._starts[at] if at < len(self._starts) else None

    def messages_between(self, start: int, end: int) -> list[int]:
        """Return the numbers of the messages of which texts start in [start, end), in the order of the text."""
        return self._messages[bisect_left(self._starts, start) : bisect_left(self._starts, end)]

    def other_between(self, message: int, start: int, end: int) -> int | None:
        """Return the number of another message of which a text starts in [start, end); None if there is none."""
        return next((number for number in self.messages_between(start, end) if number != message), None)
