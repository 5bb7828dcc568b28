"""Which rows of a split `inspect` shows: by number, length, source, record, chance, or what stands in their text.

Lengths come from the indexes and sources from the small `rows` files; only `--grep` decodes, row after row, and stops
when it has found enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError, first_line
from sft_shards.formats.shards import Split
from sft_shards.formats.shards.rows import TURNS, read_rows

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


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a sequence comes from."""

    source: str
    record: int
    turns: list[int] | None
    """Numbers of the turns that it trains, where conversations are unrolled."""


class Origins:
    """The sources and records of a split, read shard by shard when they are asked for."""

    def __init__(self, directory: Path, split: Split) -> None:
        self.directory = directory
        self.split = split
        self._tables: dict[str, Any] = {}

    def __getitem__(self, row: int) -> Origin:
        """Look up a row.

        Raises:
            DataError: the file of rows is damaged.
        """
        shard, inner = self.split.locate(row)
        one = self._table(shard.info.name, shard.info.sequences).slice(inner, 1).to_pylist()[0]
        return Origin(source=one["source"], record=one["record"], turns=one.get(TURNS))

    def matching(self, source: str, record: int | None) -> NDArray[np.int64]:
        """Return int64[n], rising: the rows of sources whose path holds a text, and of a record where it is named.

        Raises:
            UsageError: no source's path holds the text.
        """
        found, base, paths = [], 0, set()
        for shard in self.split.shards:
            table = self._table(shard.info.name, shard.info.sequences)
            own = set(table["source"].unique().to_pylist())
            paths |= own
            if any(source in path for path in own):
                chosen = np.array([source in path for path in table["source"].to_pylist()])
                if record is not None:
                    chosen &= np.array(table["record"].to_pylist()) == record
                found.append(np.flatnonzero(chosen) + base)
            base += shard.info.sequences
        if not found:
            known = ", ".join(sorted(paths)[:5]) + (" and more" if len(paths) > 5 else "")
            raise UsageError(f"--source {source}: no source of split {self.split.name} has this in its path; {known}")
        return np.concatenate(found)

    def _table(self, name: str, count: int) -> Any:
        import pyarrow as pa

        if name not in self._tables:
            path = self.directory / self.split.name / "rows" / f"{name}.parquet"
            try:
                self._tables[name] = read_rows(path, ["source", "record"], root=self.directory, count=count)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: cannot be read ({first_line(error)}); see 'sft-preprocess verify'") from None
        return self._tables[name]


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
