"""A look at the first and the last characters of many texts at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SPACE = "".join([chr(point) for point in range(0x3001) if chr(point).isspace()])
"""All white space there is."""


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """bool[65536] each: the first two bytes of texts that may begin with white space, the last two of such that may end
    with it. Some others are among them."""
    spelt = [character.encode() for character in SPACE]
    first, last = np.zeros((256, 256), dtype=bool), np.zeros((256, 256), dtype=bool)
    for one in spelt:
        first[one[0], one[1] if len(one) > 1 else slice(None)] = True
        last[one[-2] if len(one) > 1 else slice(None), one[-1]] = True
    return first.reshape(-1), last.reshape(-1)


def may_begin_with_space(values: NDArray[np.uint8], ends: NDArray[np.int32]) -> NDArray[np.bool_]:
    """bool[t] of texts in UTF-8, u8[B], of which one may be empty, with their bounds."""
    return _tables()[0][_pair(values, ends[:-1], ends[:-1] + 1)]


def may_end_with_space(values: NDArray[np.uint8], ends: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The same for their ends."""
    return _tables()[1][_pair(values, ends[1:] - 2, ends[1:] - 1)]


def _pair(values: NDArray[np.uint8], first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.uint16]:
    if not len(values):
        return np.zeros(len(first), dtype=np.uint16)
    one, other = (values[np.clip(places, 0, len(values) - 1)].astype(np.uint16) for places in (first, second))
    return np.asarray(one << 8 | other)
