"""A look at the first and the last characters of many texts at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SPACE = "".join([chr(point) for point in range(0x3001) if chr(point).isspace()])
"""All white space there is."""


class Outer:
    """Which texts may begin or end with a character that is looked for there: with any white space, at the beginning,
    and with those that a template strips, on both sides. By two bytes at each end, so some others are among them."""

    def __init__(self, strips: Iterable[str | None]) -> None:
        stripped = "".join([SPACE if chars is None else chars for chars in strips])
        self._begin = _pairs([character.encode()[:2] for character in SPACE + stripped], first=True)
        self._end = _pairs([character.encode()[-2:] for character in stripped], first=False) if stripped else None

    def may_begin_or_end(self, values: NDArray[np.uint8], ends: NDArray[np.int32]) -> NDArray[np.bool_]:
        """bool[t] of texts in UTF-8."""
        if not len(values):
            return np.asarray(np.diff(ends) == 0)
        begins, lasts = ends[:-1], ends[1:] - 1
        found = self._begin[_pair(values, begins, begins + 1)]
        return found if self._end is None else found | self._end[_pair(values, lasts - 1, lasts)]


def _pair(values: NDArray[np.uint8], first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.uint16]:
    one, other = (values[np.clip(places, 0, len(values) - 1)].astype(np.uint16) for places in (first, second))
    return np.asarray(one << 8 | other)


def _pairs(characters: Iterable[bytes], *, first: bool) -> NDArray[np.bool_]:
    """bool[65536]: two bytes, of which a character of one byte is the first or the second and the other is anything."""
    table = np.zeros((256, 256), dtype=bool)
    for one in characters:
        if len(one) == 2:
            table[one[0], one[1]] = True
        elif first:
            table[one[0]] = True
        else:
            table[:, one[0]] = True
    return table.reshape(-1)
