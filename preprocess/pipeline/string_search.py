"""Finding any of some strings in megabytes of text, where hardly any is there.

A regular expression for strings that begin otherwise tries each of them at every byte. Here numpy finds the bytes that
some string begins with, and the expression is asked only where the next bytes are those of a string as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

import numpy as np
from numpy.typing import NDArray

LONGEST_HEAD = 4
"""Bytes that are compared at once."""


class StringSearch:
    """Finds strings, the longest of those that begin at the same place.

    Args:
        strings: none is empty.
    """

    def __init__(self, strings: Set[str]) -> None:
        encoded = sorted((one.encode() for one in strings), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, encoded)))
        self._width = min([LONGEST_HEAD, *map(len, encoded)])
        heads = {one[: self._width] for one in encoded}
        self._firsts = sorted({head[0] for head in heads})
        self._heads = np.asarray(sorted(int.from_bytes(head, "little") for head in heads), dtype=np.uint32)

    def find(self, values: NDArray[np.uint8]) -> Iterator[tuple[int, bytes]]:
        """Yield where each string begins, and the string; strings may overlap.

        Args:
            values: u8[B], text in UTF-8.
        """
        for place in self._places(values).tolist():
            if found := self._pattern.match(values, place):
                yield place, found[0]

    def _places(self, values: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return int64[p], rising: where the first bytes of a string are."""
        last = max(len(values) - self._width + 1, 0)
        begins = np.sort(np.concatenate([np.flatnonzero(values[:last] == first) for first in self._firsts]))
        heads = np.zeros(len(begins), dtype=np.uint32)
        for at in range(self._width):
            heads |= values[begins + at].astype(np.uint32) << np.uint32(8 * at)
        return np.asarray(begins[np.isin(heads, self._heads)])
