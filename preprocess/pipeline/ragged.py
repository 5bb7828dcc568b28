"""Rows of different lengths in one flat array: how tokens, bytes and spans of many records are held.

A ragged array is a pair of arrays: the values of all rows, one row after the other, and int64[n + 1] offsets, where
row i is `values[offsets[i]:offsets[i + 1]]`. Three rows of two, one and three tokens:

    values   [11, 12, 21, 31, 32, 33]
    offsets  [0, 2, 3, 6]

It costs one object for a whole batch instead of one for each record. Picking rows copies them, run by run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import prefix_sums

T = TypeVar("T", bound=np.generic)


def take_rows(values: NDArray[T], offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[T]:
    """Return the values of some rows, one row after the other.

    Rows 0 and 2 of the example above are [11, 12, 31, 32, 33]. Rows that follow each other are copied as one piece, so
    that leaving out a few of many costs little more than a copy.

    Args:
        values: any dtype, [offsets[-1], ...].
        offsets: int64[n + 1].
        rows: int64[m], in any order.
    """
    if not len(rows):
        return values[:0]
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    firsts, lasts = rows[np.append(0, breaks)], rows[np.append(breaks, len(rows)) - 1]
    pieces = zip(offsets[firsts].tolist(), offsets[lasts + 1].tolist(), strict=True)
    return np.concatenate([values[start:end] for start, end in pieces])


def take_lengths(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the offsets, int64[m + 1], that belong to the values of `take_rows`; [0, 2, 5] in the example."""
    return prefix_sums(np.diff(offsets)[rows])


def concatenate_offsets(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the offsets of several ragged arrays put one after the other: [0, 2] and [0, 1, 4] give [0, 2, 3, 6]."""
    return prefix_sums(np.concatenate([np.diff(part) for part in parts]))


def whole_records(records: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return bool[n]: the sequences of which one of the same record is chosen.

    Of the records [3, 5, 5, 7] with the second chosen, these are the second and the third.

    Args:
        records: int64[n], the record of each sequence; those of one record follow each other.
        chosen: bool[n].
    """
    firsts = np.flatnonzero(np.diff(records, prepend=-1))
    if len(firsts) == len(records):
        return chosen
    return np.repeat(np.logical_or.reduceat(chosen, firsts), np.diff(firsts, append=len(records)))


def row_numbers(offsets: NDArray[Any]) -> NDArray[np.int64]:
    """Return int64[offsets[-1]]: the row of each value; [0, 0, 1, 2, 2, 2] in the example."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
