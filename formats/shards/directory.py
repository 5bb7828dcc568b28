"""Reading a complete shard directory: token ids and loss masks by split and row."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError, nearest
from sft_shards.formats.shards.indexed import MASK_DTYPE, IndexedReader, token_dtype
from sft_shards.formats.shards.manifest import Manifest, ShardInfo, SplitInfo

TRAIN = "train"
"""The split that is trained on."""


class Shard:
    """Tokens and loss mask of one shard, memory-mapped.

    Args:
        split: folder of the split; its parent is the shard directory.
        info: what the manifest says of the shard.
        vocab_size: `len(tokenizer)`, which decides the dtype of token ids.

    Raises:
        DataError: a file is damaged or no file of this directory, or tokens, loss mask and manifest differ in
            sequences, lengths or dtype.
    """

    def __init__(self, split: Path, info: ShardInfo, vocab_size: int) -> None:
        self.info = info
        self.tokens = IndexedReader(split / "tokens" / info.name, root=split.parent)
        self.loss_mask = IndexedReader(split / "loss_mask" / info.name, root=split.parent)
        where = split / "tokens" / info.name
        if len(self.tokens) != info.sequences or len(self.tokens.items) != info.tokens:
            raise DataError(f"{where}: {len(self.tokens)} sequences, the manifest says {info.sequences}; make it again")
        if not np.array_equal(self.tokens.lengths, self.loss_mask.lengths):
            raise DataError(f"{where}: tokens and loss_mask have different lengths; make the shards again")
        if self.tokens.dtype != token_dtype(vocab_size) or self.loss_mask.dtype != MASK_DTYPE:
            raise DataError(f"{where}: dtype {self.tokens.dtype}/{self.loss_mask.dtype} does not fit the manifest")


class Split:
    """The sequences of one split over all of its shards. Rows are numbered from 0 in the order of the shards.

    Args:
        name: of the split.
        shards: its shards, opened; of a part of the split, these alone.
    """

    def __init__(self, name: str, shards: Sequence[Shard]) -> None:
        self.name = name
        self.shards = list(shards)
        self.info = SplitInfo.of(tuple(shard.info for shard in shards))
        self._bounds = [0, *accumulate(shard.info.sequences for shard in self.shards)]

    def __len__(self) -> int:
        return self._bounds[-1]

    def lengths(self) -> NDArray[np.int32]:
        """Give the number of tokens of every sequence, int32[S] in the order of rows."""
        parts = [shard.tokens.lengths for shard in self.shards]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def locate(self, row: int) -> tuple[Shard, int]:
        """Find the shard that holds a row, and the row's number in it.

        Of two shards with 3 and 2 sequences, row 3 is number 0 of the second.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < self._bounds[-1]:
            raise IndexError(f"row {row} is outside 0..{len(self) - 1} of split {self.name}")
        shard = bisect_right(self._bounds, row) - 1
        return self.shards[shard], row - self._bounds[shard]

    def __getitem__(self, row: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Give one sequence: ids [L] and unshifted loss mask u8[L]: entry i says if token i is a trained target."""
        shard, inner = self.locate(row)
        return shard.tokens[inner], shard.loss_mask[inner]


@dataclass(frozen=True, kw_only=True)
class WeightedPart:
    """What the sources of one weight have in a split."""

    weight: Fraction
    """How often the trainer shows it for each time that it shows a source without a weight."""
    sources: tuple[str, ...]
    """Paths of the sources, in the order of their first shards."""
    split: Split
    """The part as a split of its own, whose rows are numbered from 0."""
    rows: NDArray[np.int64]
    """int64[S], rising: the number of each of its rows in the whole split."""


class ShardDirectory:
    """A shard directory whose manifest has been read; a split is opened when it is asked for.

        directory = ShardDirectory("shards")
        tokens, loss_mask = directory.split("train")[0]

    Raises:
        DataError: no manifest, or one that this release cannot read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)

    def split(self, name: str) -> Split:
        """Open a split.

        Raises:
            UsageError: the directory has no split of that name.
            DataError: a file is damaged.
        """
        if name not in self.manifest.splits:
            raise UsageError(f"{self.path}: no split {name!r}; {nearest(name, self.manifest.splits)}")
        vocab_size = self.manifest.tokenizer.vocab_size
        return Split(name, [Shard(self.path / name, info, vocab_size) for info in self.manifest.splits[name].shards])

    def by_weight(self, split: Split) -> list[WeightedPart]:
        """Part a split of this directory, one part for each weight of its sources, in the order of their first shards.

        A shard holds sequences of one source, so each part has shards of its own. Where all weights are equal, the one
        part is the whole split. Evaluation knows no weights: only the split `train` has several parts.

        Raises:
            DataError: a weight is no number above 0.
        """
        owners = {
            part.shards[split.name]: source
            for source in self.manifest.sources
            for part in source.parts
            if split.name in part.shards
        }
        groups: dict[Fraction, list[tuple[str, Shard, NDArray[np.int64]]]] = {}  # path of the source, shard, rows
        base = 0
        for shard in split.shards:
            owner = owners.get(shard.info.name)
            weight = owner.weight if owner and split.name == TRAIN else Fraction(1)
            rows = np.arange(base, base + shard.info.sequences)
            groups.setdefault(weight, []).append((owner.path if owner else "", shard, rows))
            base += shard.info.sequences
        return [
            WeightedPart(
                weight=weight,
                sources=tuple(dict.fromkeys(path for path, _, _ in group)),
                split=Split(split.name, [shard for _, shard, _ in group]),
                rows=np.concatenate([rows for _, _, rows in group]),
            )
            for weight, group in groups.items()
        ]
