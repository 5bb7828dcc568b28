"""What `--dedup` remembers of a task: a 16-byte digest of each conversation, beside its record number and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAME = "digests.npz"


@dataclass(frozen=True, kw_only=True)
class Digests:
    """The sequences of a task, in the order of their records."""

    records: NDArray[np.int64]
    """int64[n]: number of the record within the task's part."""
    splits: NDArray[np.uint8]
    """u8[n]: index in `SPLITS`."""
    digests: NDArray[np.uint8]
    """u8[n, 16]: `Conversation.digest`."""

    @classmethod
    def concatenate(cls, parts: Sequence[Digests]) -> Digests:
        """Put the sequences of several batches one after the other."""
        return cls(
            records=np.concatenate([part.records for part in parts]),
            splits=np.concatenate([part.splits for part in parts]),
            digests=np.concatenate([part.digests for part in parts]),
        )

    def save(self, folder: Path) -> None:
        """Write them into a task's folder."""
        np.savez(folder / NAME, records=self.records, splits=self.splits, digests=self.digests)

    @classmethod
    def load(cls, folder: Path) -> Digests:
        """Read them from a task's folder; n is 0 where the task made no sequence."""
        if not (folder / NAME).is_file():
            return cls(
                records=np.zeros(0, dtype=np.int64),
                splits=np.zeros(0, dtype=np.uint8),
                digests=np.zeros((0, 16), dtype=np.uint8),
            )
        with np.load(folder / NAME) as found:
            return cls(records=found["records"], splits=found["splits"], digests=found["digests"])
