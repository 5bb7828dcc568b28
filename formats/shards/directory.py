"""A complete shard directory, opened for reading: token and mask pairs by split and row."""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError, nearest
from sft_shards.formats.shards.indexed import MASK_DTYPE, IndexedReader, token_dtype
from sft_shards.formats.shards.manifest import Manifest, ShardInfo


class Shard:
    """One shard's tokens and loss mask, memory-mapped.

    Raises:
        DataError: a file is damaged, or the pair does not agree in sequences, lengths, dtype or the manifest.
    """

    def __init__(self, split: Path, info: ShardInfo, vocab_size: int) -> None:
        self.info = info
        self.tokens = IndexedReader(split / "tokens" / info.name)
        self.loss_mask = IndexedReader(split / "loss_mask" / info.name)
        where = split / "tokens" / info.name
        if len(self.tokens) != info.sequences or len(self.tokens.items) != info.tokens:
            raise DataError(f"{where}: {len(self.tokens)} sequences, the manifest says {info.sequences}; make it again")
        if not np.array_equal(self.tokens.lengths, self.loss_mask.lengths):
            raise DataError(f"{where}: tokens and loss_mask have different lengths; make the shards again")
        if self.tokens.dtype != token_dtype(vocab_size) or self.loss_mask.dtype != MASK_DTYPE:
            raise DataError(f"{where}: dtype {self.tokens.dtype}/{self.loss_mask.dtype} does not fit the manifest")


class Split:
    """The sequences of one split, over all of its shards, numbered 0..len-1 in shard order."""

    def __init__(self, directory: Path, name: str, manifest: Manifest) -> None:
        self.name = name
        self.info = manifest.splits[name]
        self.shards = [Shard(directory / name, info, manifest.tokenizer.vocab_size) for info in self.info.shards]
        self._bounds = [0, *accumulate(shard.info.sequences for shard in self.shards)]

    def __len__(self) -> int:
        return self._bounds[-1]

    def lengths(self) -> NDArray[np.int32]:
        """int32[S]: tokens of every sequence, in row order."""
        parts = [shard.tokens.lengths for shard in self.shards]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def locate(self, row: int) -> tuple[Shard, int]:
        """The shard that holds a row, and the row's number inside it."""
        if not 0 <= row < self._bounds[-1]:
            raise IndexError(f"row {row} is outside 0..{len(self) - 1} of split {self.name}")
        shard = bisect_right(self._bounds, row) - 1
        return self.shards[shard], row - self._bounds[shard]

    def __getitem__(self, row: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """One sequence: ids [L] and unshifted loss mask u8[L] (entry i: does token i, as a target, carry loss)."""
        shard, inner = self.locate(row)
        return shard.tokens[inner], shard.loss_mask[inner]


class ShardDirectory:
    """`DIR` with its manifest read; splits are opened when asked for.

    >>> directory = ShardDirectory("shards")            # doctest: +SKIP
    >>> tokens, loss_mask = directory.split("train")[0]  # doctest: +SKIP

    Raises:
        DataError: no manifest, or one that this release cannot read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)

    def split(self, name: str) -> Split:
        """Open a split; UsageError where the directory has none of that name."""
        if name not in self.manifest.splits:
            raise UsageError(f"{self.path}: no split {name!r}; {nearest(name, self.manifest.splits)}")
        return Split(self.path, name, self.manifest)
