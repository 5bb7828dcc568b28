"""Cutting a source into parts of about equal work, by its contents alone.

The cuts follow from the file and from `--shard-tokens`, never from the number of workers, so that part i is the
same wherever it is read. Lines are cut at every multiple of the target, without a look at the file: a file that
grew has the same parts as before, but for the last. An array is scanned for its commas, Parquet and Arrow are cut
between row groups and record batches. A compressed file and CSV are one part, since nothing tells where a record
begins in their middle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from sft_shards.preprocess.sources import json_array, tables
from sft_shards.preprocess.sources.source import Source
from sft_shards.preprocess.sources.streams import blocks


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a source. The parts of a source stand one after the other and cover all of it."""

    begin: int = 0
    """The first byte whose hash this part answers for; of text, also where its records may begin."""
    end: int
    """The byte behind the last one."""
    first: int = 0
    """The first row group or record batch of a table; 0 for text."""
    last: int = 0
    """The one behind the last."""


class _Nothing:
    """A digest that takes nothing in."""

    def update(self, data: object) -> None:
        """Forget it."""


def cut(source: Source, target: int) -> list[Part]:
    """The parts of a source, of about `target` bytes each.

    Raises:
        DataError: an array that is cut off, or a damaged table.
    """
    whole = [Part(end=source.bytes)]
    if source.compression or source.kind in ("object", "csv"):
        return whole
    if source.kind in ("parquet", "arrow"):
        return _by_units(source.bytes, tables.unit_sizes(source), target)
    if source.kind == "json":
        with open(source.file, "rb") as file:
            stream = blocks(file, 0, source.bytes, _Nothing())
            return _by_offsets(source.bytes, _chosen(json_array.ends(stream, source.path), target), target)
    return _by_offsets(source.bytes, list(range(target, source.bytes, target)), target)


def _chosen(ends: Iterable[int], target: int) -> list[int]:
    """The first place at or behind each multiple of the target."""
    chosen: list[int] = []
    goal = target
    for place in ends:
        if place >= goal:
            chosen.append(place)
            goal = (place // target + 1) * target
    return chosen


def _by_offsets(size: int, cuts: list[int], target: int) -> list[Part]:
    """Parts between the cuts; a rest of less than half the target joins the part before it."""
    if cuts and size - cuts[-1] < target // 2:
        cuts = cuts[:-1]
    bounds = [0, *cuts, size]
    return [Part(begin=begin, end=end) for begin, end in pairwise(bounds)]


def _by_units(size: int, units: list[int], target: int) -> list[Part]:
    """Parts of whole units (row groups or record batches); each answers for the same share of the file's bytes."""
    bounds, held = [0], 0
    for number, unit in enumerate(units):
        if held and held + unit > target + target // 2:
            bounds.append(number)
            held = 0
        held += unit
    bounds.append(len(units))
    places = [size * bound // len(units) if units else size for bound in bounds]
    places[0] = 0
    return [
        Part(begin=places[at], end=places[at + 1], first=bounds[at], last=bounds[at + 1])
        for at in range(len(bounds) - 1)
    ]
