"""The pack plan of a split: which conversations share which sample, as two small cached arrays.

Tokens are never copied, so that a new sequence length, seed or mixture is only a new plan and costs seconds. With
`padded` batching every pack holds one conversation. With context parallelism each conversation takes a multiple of
some number of positions, because every rank gets equal parts of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Split
from sft_shards.formats.shards.packing import Packs
from sft_shards.formats.shards.selection import Targets, all_targets, content, rounded_up, select
from sft_shards.trainer.data.cache import Arrays, Cache, Key

OVERLONG = ("truncate", "drop")
"""What happens to a conversation that does not fit; see `formats.shards.selection.select`."""
BATCHING = ("packed", "padded")
"""`packed` fills a sample with conversations, `padded` gives each conversation a sample."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a plan: conversations unless stated otherwise."""

    stored: int
    """On disk."""
    conversations: int
    """In the plan."""
    positions: int
    """Positions (a conversation of L tokens has L - 1) that they fill."""
    gaps: int
    """Padding behind conversations within packs, in positions, which makes each a multiple of some number of them."""
    trained_tokens: int
    """Positions whose label carries loss."""
    cut: int
    """In the plan, without their end: longer than seq_length + 1 tokens."""
    overlong: int
    """Left out because they are longer than seq_length + 1 tokens."""
    untrained: int
    """Left out because no target within the sequence carries loss."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The packs of one split, each a training sample."""

    split: Split
    packs: Packs
    """Its items are row numbers of the split."""
    counts: Counts
    identity: str
    """Hash of the split's tokens and masks, see `selection.content`."""
    multiple: int = 1
    """Each conversation takes a multiple of so many positions of its pack."""

    def __len__(self) -> int:
        return len(self.packs.bounds) - 1

    def squares(self, seq_length: int) -> NDArray[np.int64]:
        """Return int64[packs]: of each pack the sum of the squares of its conversations' positions.

        Conversations of 4 and 3 tokens have 3 and 2 positions, so their pack has 13 (with multiples of 4: 32); padding
        behind the last one is not counted.

        Args:
            seq_length: positions of a sample; no conversation has more.
        """
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        lengths = self.split.lengths()[self.packs.items].astype(np.int64)
        positions = rounded_up(np.minimum(lengths - 1, seq_length), self.multiple)
        return np.add.reduceat(positions * positions, self.packs.bounds[:-1].astype(np.int64))


def make_plan(
    split: Split,
    *,
    seq_length: int,
    overlong: str,
    batching: str,
    every_token: bool,
    seed: int,
    cache: Cache,
    multiple: int = 1,
) -> Plan:
    """Return the plan of a split, from the cache if it is there.

    Args:
        batching: `packed` fills a sample with conversations, `padded` gives each conversation a sample.
        multiple: in a packed plan each conversation takes a multiple of so many positions; it divides `seq_length`.
        seed: of the shuffling in a packed plan.
        cache: where the plan and the selection are kept.
        seq_length, overlong, every_token: see `sft_shards.formats.shards.selection.select`.

    Raises:
        DataError: the split has 2^32 conversations or more, or the cache cannot be used.
    """
    if len(split) >= 1 << 32:
        raise DataError(f"{split.name}: {len(split)} conversations are too many for one directory; use several")
    assert seq_length % multiple == 0
    identity, multiple = content(split), multiple if batching == "packed" else 1

    def build() -> Arrays:
        chosen = select(
            split,
            seq_length=seq_length,
            overlong=overlong,
            every_token=every_token,
            targets=lambda split: cached_targets(split, cache),
        )
        if batching == "packed":
            packs = chosen.packed(split, seq_length=seq_length, seed=seed, multiple=multiple)
            rows, bounds = packs.items, packs.bounds
        else:
            rows, bounds = chosen.rows, np.arange(len(chosen.rows) + 1, dtype=np.uint32)
        counts = Counts(
            stored=len(split),
            conversations=len(chosen.rows),
            positions=int(chosen.positions.sum(dtype=np.int64)),
            gaps=int((rounded_up(chosen.positions, multiple) - chosen.positions).sum()),
            trained_tokens=chosen.trained_tokens,
            cut=chosen.cut,
            overlong=chosen.overlong,
            untrained=chosen.untrained,
        )
        return {"rows": rows, "bounds": bounds, "counts": np.array([getattr(counts, n) for n in names])}

    names = [each.name for each in fields(Counts)]
    key: Key = {
        "version": 2,
        "split": identity,
        "seq_length": seq_length,
        "overlong": overlong,
        "batching": batching,
        "every_token": every_token,
        "seed": seed if batching == "packed" else None,
        "multiple": multiple,
    }
    found = cache.arrays("plan", key, build)
    return Plan(
        split=split,
        packs=Packs(items=found["rows"], bounds=found["bounds"]),
        counts=Counts(**dict(zip(names, found["counts"].tolist(), strict=True))),
        identity=identity,
        multiple=multiple,
    )


def cached_targets(split: Split, cache: Cache) -> Targets:
    """Return the targets of a split, from the cache if they are there."""

    def read() -> Arrays:
        found = all_targets(split)
        return {"first": found.first, "count": found.count}

    found = cache.arrays("targets", {"version": 1, "split": content(split)}, read)
    return Targets(first=found["first"], count=found["count"])
