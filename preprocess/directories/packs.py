"""`inspect --pack`: one training sample as the trainer builds it, with the conversations that share it.

Selection and packing are the trainer's own functions (`formats.shards.selection`, `packing`), so with the same sequence
length and seed it is the same pack. Where sources have weights, those of one weight are packed apart, and their packs
are numbered one part after the other. A conversation of L tokens takes L - 1 positions: position i reads token i and
predicts token i + 1, and whether that carries loss is the mask of token i + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import ShardDirectory, Split
from sft_shards.formats.shards.selection import select


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One conversation of a pack."""

    row: int
    """Its row in the split."""
    begin: int
    """Its first position in the sample."""
    tokens: NDArray[Any]
    """int[L]: its ids, cut to the sequence length and one more."""
    loss_mask: NDArray[np.uint8]
    """u8[L], 0/1, unshifted: entry i says if token i is a trained target."""
    cut: int
    """Tokens that do not fit and are cut off its end."""

    @property
    def positions(self) -> int:
        """Positions that it takes."""
        return len(self.tokens) - 1

    @property
    def trained_tokens(self) -> int:
        """Positions whose label carries loss."""
        return int(self.loss_mask[1:].sum())


@dataclass(frozen=True, kw_only=True)
class PackedSample:
    """One training sample."""

    number: int
    packs: int
    """Packs of the split: the samples of an epoch, where sources have no weights."""
    seq_length: int
    segments: tuple[Segment, ...]

    @property
    def positions(self) -> int:
        """Positions that hold a token."""
        return sum(segment.positions for segment in self.segments)

    @property
    def trained_tokens(self) -> int:
        """Positions whose label carries loss."""
        return sum(segment.trained_tokens for segment in self.segments)


def packed_sample(
    directory: ShardDirectory, split: Split, number: int, *, seq_length: int, overlong: str, seed: int
) -> PackedSample:
    """Pack a split as the trainer does, and return one pack.

    Args:
        directory: the shard directory.
        split: one of its splits.
        number: of the pack, from 0, in the order of the pack plan (training shuffles it once more for each epoch).
        seq_length: positions of a sample.
        overlong: `truncate` or `drop`.
        seed: of the trainer.

    Raises:
        UsageError: there is no such pack.
    """
    count, found = 0, None
    for part in directory.by_weight(split):
        chosen = select(part.split, seq_length=seq_length, overlong=overlong, every_token=False)
        packs = chosen.packed(part.split, seq_length=seq_length, seed=seed)
        own = len(packs.bounds) - 1
        if 0 <= number - count < own:
            found = part, packs.items[packs.bounds[number - count] : packs.bounds[number - count + 1]].tolist()
        count += own
    if found is None:
        raise UsageError(f"--pack {number}: at --seq-length {seq_length} there are packs 0 to {count - 1}")
    part, rows = found
    segments, begin = [], 0
    for row in rows:
        tokens, loss_mask = part.split[row]
        kept = min(len(tokens), seq_length + 1)
        segments.append(
            Segment(
                row=int(part.rows[row]),
                begin=begin,
                tokens=tokens[:kept],
                loss_mask=loss_mask[:kept],
                cut=len(tokens) - kept,
            )
        )
        begin += kept - 1
    return PackedSample(number=number, packs=count, seq_length=seq_length, segments=tuple(segments))
