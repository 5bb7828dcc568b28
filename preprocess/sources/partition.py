"""Parts of a source: how a file is cut into pieces of about equal work, and its content hash from theirs.

The cuts follow from the file and from `--shard-tokens`, never from the number of workers, so that part i is the
same wherever it is read. Each kind of input says where its files can be cut: lines at every multiple of the target
(a file that grew has the same parts as before, but for the last), an array behind its commas, Parquet and Arrow
between row groups and record batches. A compressed file and CSV are one part, since nothing tells where a record
begins in their middle.

No process reads a whole source of a terabyte, so its hash is made of what the tasks hashed as they read: see
`combined_sha256`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sft_shards.formats.shards import PartInfo


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a source. The parts of a source follow each other and cover all of it."""

    begin: int = 0
    """Offset in bytes of the first byte that this part hashes. In a text, its records begin here or later."""
    end: int
    """Offset in bytes of its end (exclusive)."""
    first: int = 0
    """Its first row group or record batch; 0 for texts."""
    last: int = 0
    """The end (exclusive) of its row groups or record batches; 0 for texts."""


def parts_at(cuts: Sequence[int], size: int, target: int) -> list[Part]:
    """Return the parts of a file of `size` bytes between cuts; a rest below half the target joins the part before it.

    >>> [(part.begin, part.end) for part in parts_at([100, 200], 230, target=100)]
    [(0, 100), (100, 230)]
    """
    if cuts and size - cuts[-1] < target // 2:
        cuts = cuts[:-1]
    return [Part(begin=begin, end=end) for begin, end in pairwise([0, *cuts, size])]


def spaced_out(places: Iterable[int], target: int) -> list[int]:
    """Return the first place at or behind each multiple of the target.

    >>> spaced_out([90, 110, 190, 340], target=100)
    [110, 340]
    """
    chosen: list[int] = []
    goal = target
    for place in places:
        if place >= goal:
            chosen.append(place)
            goal = (place // target + 1) * target
    return chosen


def parts_of_units(units: Sequence[int], size: int, target: int) -> list[Part]:
    """Return parts of whole row groups or record batches, each with the same share of the file's bytes to hash.

    Args:
        units: bytes of each row group or record batch in memory.
        size: bytes of the file.

    >>> [(part.first, part.last, part.begin, part.end) for part in parts_of_units([60, 60, 60], 90, target=100)]
    [(0, 2, 0, 60), (2, 3, 60, 90)]
    """
    bounds, held = [0], 0
    for number, unit in enumerate(units):
        if held and held + unit > target + target // 2:
            bounds.append(number)
            held = 0
        held += unit
    bounds.append(len(units))
    offsets = [size * bound // len(units) if units else size for bound in bounds]
    offsets[0] = 0
    ranges = zip(pairwise(offsets), pairwise(bounds), strict=True)
    return [Part(begin=begin, end=end, first=first, last=last) for (begin, end), (first, last) in ranges]


def combined_sha256(parts: Sequence[PartInfo]) -> str:
    """Return the hash of a source from the hashes of its parts.

    A source of one part has the SHA-256 of its bytes (what `sha256sum` prints); one of several has the SHA-256 over
    a line `BEGIN END HASH\\n` for each part, in order. The parts follow from the file and from `--shard-tokens`, so
    two jobs with the same configuration give one file the same hash.

    >>> combined_sha256([PartInfo(begin=0, end=3, sha256="abc", records=1, notes={}, shards={})])
    'abc'
    """
    if len(parts) == 1:
        return parts[0].sha256
    lines = "".join(f"{part.begin} {part.end} {part.sha256}\n" for part in parts)
    return hashlib.sha256(lines.encode("ascii")).hexdigest()
