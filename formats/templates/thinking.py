"""Think blocks in a rendering: `<think> … </think>`, with nothing in it or opened by the header."""

from __future__ import annotations

import re

THINK = re.compile(r"(</?think>)")
EMPTY_THINK = re.compile(r"<think>\s*</think>\n{0,2}")
EMPTY_THINK_OPENED = re.compile(r"\s*</think>\n{0,2}")
"""Templates write at most an empty line behind the block; white space after that is the turn's own."""
OPENING = "<think>"


def after_empty_think(text: str, start: int) -> int:
    """Where a turn's own words begin, `start` being the end of its header: after a think block with nothing in it,
    of which the header may hold the first half."""
    pattern = EMPTY_THINK if opened_think(text, 0, start) is None else EMPTY_THINK_OPENED
    found = pattern.match(text, start)
    return found.end() if found else start


def opened_think(text: str, begin: int, end: int) -> int | None:
    """Where in text[begin:end] the `<think>` starts behind which there is nothing but white space."""
    while end > begin and text[end - 1].isspace():
        end -= 1
    return end - len(OPENING) if text.endswith(OPENING, begin, end) else None
