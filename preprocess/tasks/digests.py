"""What `--dedup` remembers of a task: a 16-byte digest of each conversation, beside its record number and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.contents import open_inside
from sft_shards.formats.shards.files import sync

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
        with open(folder / NAME, "wb") as file:
            np.savez(file, records=self.records, splits=self.splits, digests=self.digests)
            sync(file)

    @classmethod
    def load(cls, output: Path, task: str) -> Digests:
        """Read them from a task's folder; n is 0 where the task made no sequence.

        Args:
            task: path of that folder below the output folder.

        Raises:
            DataError: the file is a link, or damaged.
        """
        try:
            with open_inside(output, f"{task}/{NAME}") as file, np.load(file, allow_pickle=False) as found:
                return cls(records=found["records"], splits=found["splits"], digests=found["digests"])
        except FileNotFoundError:
            return cls(
                records=np.zeros(0, dtype=np.int64),
                splits=np.zeros(0, dtype=np.uint8),
                digests=np.zeros((0, 16), dtype=np.uint8),
            )
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{output / task / NAME}: damaged ({error}); start again with --overwrite") from None
