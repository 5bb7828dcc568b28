"""Where the texts of messages stand in a rendering, found by message and by place without going through all of them.

A conversation of a megabyte can have tens of thousands of short turns: whatever is asked about a turn must not look at
all the others.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

CONTENT, REASONING, CALL = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """Where a text of a message stands in the plain rendering, in characters."""

    message: int
    kind: int
    """`CONTENT`, `REASONING` or `CALL`."""
    start: int
    end: int


class Anchors:
    """The anchors of one rendering.

    Args:
        found: in text order, apart from each other.
    """

    def __init__(self, found: Sequence[Anchor]) -> None:
        self._starts = [anchor.start for anchor in found]
        self._ends = [anchor.end for anchor in found]
        self._of: dict[int, list[Anchor]] = {}
        for anchor in found:
            self._of.setdefault(anchor.message, []).append(anchor)

    def of(self, message: int) -> Sequence[Anchor]:
        """Those of a message, in text order."""
        return self._of.get(message, ())

    def end_before(self, place: int) -> int:
        """Where the last text that ends at `place` or before it ends; 0 where there is none."""
        at = bisect_right(self._ends, place)
        return self._ends[at - 1] if at else 0

    def start_after(self, place: int) -> int | None:
        """Where the first text that starts at `place` or behind it starts; None where there is none."""
        at = bisect_left(self._starts, place)
        return self._starts[at] if at < len(self._starts) else None
