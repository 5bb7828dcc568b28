"""The plan of a split: which conversations stand in which sample. Two small arrays, cached; never a copy of tokens.

A new sequence length, seed or mixture is a new plan and costs seconds. A padded sample is a pack of one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Split
from sft_shards.trainer.data.cache import Arrays, Cache
from sft_shards.trainer.data.packing import Packs, pack
from sft_shards.trainer.data.selection import content, select


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The sums over a plan, as integers."""

    stored: int
    """Conversations on disk."""
    conversations: int
    """Of them in the plan."""
    positions: int
    """Positions that they fill."""
    trained_tokens: int
    """Positions that carry loss."""
    cut: int
    """Conversations in the plan that lost their end."""
    overlong: int
    """Left out because they are too long."""
    untrained: int
    """Left out because no target within the sequence carries loss."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The samples of one split."""

    split: Split
    packs: Packs
    """Items are rows of the split."""
    counts: Counts
    identity: str
    """Hash of the split's content."""

    def __len__(self) -> int:
        return len(self.packs.bounds) - 1


def make_plan(
    split: Split, *, seq_length: int, overlong: str, batching: str, every_token: bool, seed: int, cache: Cache
) -> Plan:
    """The plan of a split, from the cache or made and cached.

    Args:
        batching: `packed` fills a sample with conversations, `padded` gives each its own.
        seed: of the shuffling in a packed plan.
        seq_length, overlong, every_token: see `sft_shards.trainer.data.selection.select`.
    """
    if len(split) >= 1 << 32:
        raise DataError(f"{split.name}: {len(split)} conversations are too many for one directory; use several")
    identity = content(split)

    def build() -> Arrays:
        chosen = select(split, seq_length=seq_length, overlong=overlong, every_token=every_token, cache=cache)
        if batching == "packed":
            packs = pack(chosen.positions, seq_length, seed, identity)
            rows, bounds = chosen.rows[packs.items], packs.bounds
        else:
            rows, bounds = chosen.rows, np.arange(len(chosen.rows) + 1, dtype=np.uint32)
        counts = Counts(
            stored=len(split),
            conversations=len(chosen.rows),
            positions=int(chosen.positions.sum(dtype=np.int64)),
            trained_tokens=chosen.trained_tokens,
            cut=chosen.cut,
            overlong=chosen.overlong,
            untrained=chosen.untrained,
        )
        return {"rows": rows, "bounds": bounds, "counts": np.array([getattr(counts, n) for n in names])}

    names = [each.name for each in fields(Counts)]
    key = {
        "version": 1,
        "split": identity,
        "seq_length": seq_length,
        "overlong": overlong,
        "batching": batching,
        "every_token": every_token,
        "seed": seed if batching == "packed" else None,
    }
    found = cache.arrays("plan", key, build)
    return Plan(
        split=split,
        packs=Packs(items=found["rows"], bounds=found["bounds"]),
        counts=Counts(**dict(zip(names, found["counts"].tolist(), strict=True))),
        identity=identity,
    )
