"""The values in shards, checked once before they are trained on: ids below the vocabulary's size, masks of 0 and 1.

A model has rows for more ids than its vocabulary (the embedding is padded), and a loss mask is a weight, so a wrong
value trains silently. The extremes of every shard are read in one pass over its memory maps and kept in the cache, by
the hashes in the manifest and by the size and the time of change of each file. Reading takes as long as the disk needs;
`--skip-scan` leaves it out. Whether files are those that the manifest names is for `sft-preprocess verify`, which
hashes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Shard, ShardDirectory, Split
from sft_shards.formats.shards.selection import content
from sft_shards.trainer.data.cache import Arrays, Cache, Key

SPLITS = ("train", "valid")
"""The splits that a training run reads."""
CHUNK = 1 << 24
"""Items of a shard that are looked at together."""
THREADS = 8


def check_layout(directories: Iterable[ShardDirectory], splits: Collection[str] = SPLITS) -> None:
    """Check headers, lengths, pointers and document bounds of every shard; cheap, because no token is read.

    Args:
        splits: those that are read.

    Raises:
        DataError: a file is damaged, or a sequence has no items or lies elsewhere than its length says.
    """
    for directory in directories:
        for split in _splits(directory, splits):
            for shard in split.shards:
                shard.tokens.check_layout()
                shard.loss_mask.check_layout()


def check_values(directories: Iterable[ShardDirectory], cache: Cache, splits: Collection[str] = SPLITS) -> None:
    """Check every id and every mask value; one process scans a directory, and the cache keeps what it found.

    Args:
        splits: those that are read.

    Raises:
        DataError: an id is outside of the vocabulary, a mask value is neither 0 nor 1, or another number of tokens
            carries loss than the manifest says.
    """
    for directory in directories:
        vocabulary = directory.manifest.tokenizer.vocab_size
        for split in _splits(directory, splits):
            key: Key = {"version": 1, "split": content(split), "files": _stamps(split)}
            found = cache.arrays("scan", key, partial(_scan, split))["extremes"]
            for shard, (lowest, highest, mask, trained) in zip(split.shards, found.tolist(), strict=True):
                where = f"{directory.path}: shard {shard.info.name} of split {split.name}"
                if lowest < 0 or highest >= vocabulary:
                    number = lowest if lowest < 0 else highest
                    raise DataError(
                        f"{where}: id {number} is outside of the vocabulary of {vocabulary}; make the shards again"
                    )
                if mask > 1:
                    raise DataError(f"{where}: mask value {mask} is neither 0 nor 1; make the shards again")
                if trained != shard.info.trained_tokens:
                    raise DataError(
                        f"{where}: {trained} tokens carry loss, the manifest says {shard.info.trained_tokens}; "
                        "make the shards again"
                    )


def _splits(directory: ShardDirectory, splits: Collection[str]) -> list[Split]:
    return [directory.split(name) for name in splits if name in directory.manifest.splits]


def _stamps(split: Split) -> str:
    """Hash the sizes and times of change of a split's files, so that a file that changed is scanned again."""
    found = []
    for shard in split.shards:
        for reader in (shard.tokens, shard.loss_mask):
            for suffix in (".bin", ".idx"):
                state = os.stat(reader.prefix.with_suffix(suffix))
                found.append((state.st_size, state.st_mtime_ns))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _scan(split: Split) -> Arrays:
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(_extremes, split.shards))
    return {"extremes": np.array(rows, dtype=np.int64).reshape(-1, 4)}


def _extremes(shard: Shard) -> tuple[int, int, int, int]:
    """Return the lowest and the highest id of a shard, its highest mask value, and the sum of its mask.

    Ids 5 9 7 with the mask 0 1 1 give 5, 9, 1 and 2.
    """
    ids, masks = shard.tokens.items, shard.loss_mask.items
    lowest, highest, mask, trained = int(ids[0]), int(ids[0]), 0, 0
    for begin in range(0, len(ids), CHUNK):
        part: NDArray[np.generic] = ids[begin : begin + CHUNK]
        lowest, highest = min(lowest, int(part.min())), max(highest, int(part.max()))
        entries = masks[begin : begin + CHUNK]
        mask, trained = max(mask, int(entries.max())), trained + int(entries.sum(dtype=np.int64))
    return lowest, highest, mask, trained
