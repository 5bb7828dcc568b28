"""What a stretch of records becomes: sequences one after the other in flat arrays, and the records left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import SPLITS


def count_trained(loss_mask: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n], tokens that carry loss in each of several sequences, u8[sum(lengths)], of which none is empty."""
    if not len(lengths):
        return np.zeros(0, dtype=np.int64)
    return np.add.reduceat(loss_mask, np.cumsum(lengths) - lengths, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A record that was left out."""

    record: int
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences in the order of their records."""

    records: NDArray[np.int64]
    """int64[n], rising: the record that each sequence was made of."""
    splits: NDArray[np.uint8]
    """u8[n]: index in `SPLITS`."""
    digests: NDArray[np.uint8]
    """u8[n, 16]: `Conversation.digest`, or u8[0, 16] where nobody asked for it."""
    lengths: NDArray[np.int64]
    """int64[n], tokens of each."""
    ids: NDArray[np.int32]
    """int32[sum(lengths)]."""
    loss_mask: NDArray[np.uint8]
    """u8[sum(lengths)], 0/1, unshifted."""
    trained: NDArray[np.int64]
    """int64[n], tokens of each that carry loss."""
    rejects: Sequence[Reject]
    """In the order of their records."""
    notes: Counter[str]

    def of_split(self, split: str) -> Batch:
        """The sequences of one split; rejects and notes stay where they are."""
        chosen = self.splits == SPLITS.index(split)
        if chosen.all():
            return self
        tokens = np.repeat(chosen, self.lengths)
        return Batch(
            records=self.records[chosen],
            splits=self.splits[chosen],
            digests=self.digests[chosen] if len(self.digests) else self.digests,
            lengths=self.lengths[chosen],
            ids=self.ids[tokens],
            loss_mask=self.loss_mask[tokens],
            trained=self.trained[chosen],
            rejects=(),
            notes=Counter(),
        )
