"""Which rows of a split `inspect` shows: by number, length, source, record, chance, or what stands in their text.

Lengths come from the indexes and sources from the small `rows` files; only `--grep` decodes, row after row, and stops
when it has found enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import Split
from sft_shards.formats.shards.rows import Origins

ORDERS = ("row", "random", "longest", "shortest")
"""In which order rows are looked at."""


@dataclass(frozen=True, kw_only=True)
class RowQuery:
    """Which rows are shown, in which order."""

    first: int = 0
    """Row from which on rows are looked at in the order `row`."""
    count: int = 1
    """Rows that are shown at most."""
    order: str = "row"
    """One of `ORDERS`."""
    seed: int = 0
    """Of the order `random`."""
    source: str = ""
    """Part of the path of the source; "" for any."""
    record: int | None = None
    """Number of the record in its source."""
    pattern: str = ""
    """Regular expression that the decoded text holds; "" for any."""


def chosen_rows(
    split: Split, origins: Origins, query: RowQuery, decode: Callable[[NDArray[Any]], str]
) -> Iterator[int]:
    """Yield the rows that a query asks for, at most `query.count`.

    Args:
        decode: gives the text of ids.

    Raises:
        UsageError: the pattern is no regular expression, no source has the name, or there is no such row.
        IndexError: there is no row of the number `query.first`.
    """
    try:
        pattern = re.compile(query.pattern)
    except re.error as error:
        raise UsageError(f"--grep {query.pattern}: no regular expression ({error})") from None
    split.locate(query.first)  # raises
    rows = np.arange(len(split))
    if query.source or query.record is not None:
        rows = origins.matching(query.source, query.record)
    rows = rows[rows >= query.first]
    if query.order == "random":
        rows = np.random.default_rng(query.seed).permutation(rows)
    elif query.order != "row":
        sign = -1 if query.order == "longest" else 1
        rows = rows[np.argsort(sign * split.lengths()[rows].astype(np.int64), kind="stable")]
    left = query.count
    for row in rows.tolist():
        if not left:
            return
        if query.pattern and not pattern.search(decode(split[row][0])):
            continue
        yield row
        left -= 1
