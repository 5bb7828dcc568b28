"""A stretch of consecutive records: as they lie in memory, so that many can be looked at at once.

Each kind gives any of its records by itself too, in the form that the careful way takes: a JSON text that is still
to be parsed (bytes), a value, or the reason why it could not be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import RecordError
from sft_shards.preprocess.sources.source import Item

if TYPE_CHECKING:
    import pyarrow as pa

SPACE = b" \t\r\n"
FEW = 16
"""Rows up to which one by one is faster than the whole table."""


class Records:
    """Some records, which their numbers say.

    Args:
        first: the number of the first one within its part; the others follow.
        values: values, or reasons why there is none.
    """

    def __init__(self, first: int, values: Sequence[Any | RecordError] = ()) -> None:
        self.first = first
        self._values = values

    @property
    def numbers(self) -> NDArray[np.int64]:
        """int64[n]."""
        return np.arange(self.first, self.first + len(self))

    def __len__(self) -> int:
        return len(self._values)

    def some(self, places: Sequence[int]) -> list[Any]:
        """The records at some places, each by itself."""
        return [self._values[place] for place in places]

    def __iter__(self) -> Iterator[Item]:
        return iter(zip(self.numbers.tolist(), self.some(range(len(self))), strict=True))


class Texts(Records):
    """JSON texts.

    Attributes:
        raw: all of them, with white space in between.
        begins, ends: int64[n]: where each begins and ends in it, without white space around it.
    """

    def __init__(self, first: int, raw: bytes | memoryview, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        super().__init__(first)
        self.raw, self.begins, self.ends = raw, begins, ends
        for at in self._spaced():
            text = bytes(raw[begins[at] : ends[at]])
            begins[at] += len(text) - len(text.lstrip(SPACE))
            ends[at] = begins[at] + len(text.strip(SPACE))

    @classmethod
    def of_lines(cls, first: int, chunk: bytes) -> Texts:
        """Those of the lines of a chunk that are not blank."""
        breaks = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n"))
        begins, ends = np.append(0, breaks + 1), np.append(breaks, len(chunk))
        found = cls(first, chunk, begins, ends)
        kept = ends > begins
        for at in found._spaced():
            kept[at] = not chunk[begins[at] : ends[at]].isspace()
        found.begins, found.ends = begins[kept], ends[kept]
        return found

    def _spaced(self) -> list[int]:
        """Which of them begin or end with what is no letter."""
        values = np.frombuffer(self.raw, dtype=np.uint8)
        some = np.flatnonzero(self.ends > self.begins)
        low = (values[self.begins[some]] <= ord(" ")) | (values[self.ends[some] - 1] <= ord(" "))
        spaced: list[int] = some[low].tolist()
        return spaced

    @classmethod
    def of_items(cls, first: int, items: Sequence[bytes]) -> Texts:
        """Items of an array, each a record even if it is blank."""
        sizes = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
        ends = np.cumsum(sizes + 1) - 1
        return cls(first, b"\n".join(items), ends - sizes, ends)

    def __len__(self) -> int:
        return len(self.begins)

    def some(self, places: Sequence[int]) -> list[Any]:
        """The records at some places, each by itself."""
        return [bytes(self.raw[self.begins[place] : self.ends[place]]) for place in places]

    def part(self, places: Sequence[int]) -> Texts:
        """Those at some places, rising, by themselves."""
        if not isinstance(places, range):
            return Texts.of_items(self.first, self.some(places))
        begins, ends = self.begins[places.start : places.stop], self.ends[places.start : places.stop]
        return Texts(self.first, memoryview(self.raw)[begins[0] : ends[-1]], begins - begins[0], ends - begins[0])

    def other(self, opening: int, closing: int) -> int | None:
        """The place of the first text that does not begin and end with certain bytes."""
        values = np.frombuffer(self.raw, dtype=np.uint8)
        inside = np.minimum(self.begins, len(values) - 1)
        odd = (self.ends - self.begins < 2) | (values[inside] != opening) | (values[self.ends - 1] != closing)
        return int(odd.argmax()) if odd.any() else None


class Rows(Records):
    """Rows of a table."""

    def __init__(self, first: int, batch: pa.RecordBatch) -> None:
        super().__init__(first)
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def some(self, places: Sequence[int]) -> list[Any]:
        """The records at some places, each by itself."""
        if len(places) <= FEW:
            return [self.batch.slice(place, 1).to_pylist()[0] for place in places]
        values = self.batch.to_pylist()
        return [values[place] for place in places]
