"""The characters of JSON texts, many texts at once: which quotes end a string, and what stands beside a place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUOTE, BACKSLASH = b'"\\'
SPACE = np.isin(np.arange(256), list(b" \t\r\n"))
MOST_SPACES = 64
"""White space up to which it is looked over for the character behind it."""


def unescaped_quotes(values: NDArray[np.uint8], offsets: NDArray[Any]) -> NDArray[np.int64]:
    r"""Return where quotes begin or end a string in JSON texts: those behind an even number of backslashes.

    In `"\\"` these are the first and the last byte, in `"\""` as well.

    Args:
        values: u8[B], the texts one after the other.
        offsets: int[n + 1], where each begins in them.
    """
    quotes = np.flatnonzero(values == QUOTE)
    slashes = escaping_slashes(values)
    if len(slashes):
        escaped = np.zeros(len(values) + 1, dtype=bool)
        escaped[slashes + 1] = True
        escaped[offsets] = False
        quotes = quotes[~escaped[quotes]]
    return quotes


def escaping_slashes(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return which backslashes escape what is behind them: every other one of a run."""
    slashes = np.flatnonzero(values == BACKSLASH)
    if not len(slashes):
        return slashes
    first = np.append(True, np.diff(slashes) != 1)
    begins = slashes[np.maximum.accumulate(np.where(first, np.arange(len(slashes)), 0))]
    escaping: NDArray[np.int64] = slashes[(slashes - begins) % 2 == 0]
    return escaping


def beside(values: NDArray[np.uint8], places: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Return the place of the next character beside each place that is no white space, as far as it is looked over."""
    last = len(values) - 1
    found = np.clip(places + step, 0, last)
    rest = np.flatnonzero(SPACE[values[found]])
    for _ in range(MOST_SPACES):
        if not len(rest):
            break
        found[rest] = np.clip(found[rest] + step, 0, last)
        rest = rest[SPACE[values[found[rest]]]]
    return found
