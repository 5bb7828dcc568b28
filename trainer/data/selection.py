"""Which conversations of a split are trained on: those with a trained target within the sequence.

A conversation of L tokens has L - 1 positions, `--seq-length` N holds up to N + 1 tokens; a longer one is cut there
or left out. Whether what remains carries loss stands in the mask alone, so the mask is read once per split, in
blocks of whole conversations, and what was found (the first trained target and their number, 8 bytes a conversation)
is cached whatever the sequence length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import Split
from sft_shards.trainer.data.cache import Arrays, Cache

BLOCK = 1 << 22
"""Mask entries looked at together."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is trained on, and the sums that are shown before training."""

    rows: NDArray[np.uint32]
    """uint32[n], rising: rows of the split."""
    positions: NDArray[np.int32]
    """int32[n]: positions that each takes, 1..seq_length."""
    trained_tokens: int
    """Targets that carry loss, after the cut."""
    cut: int
    """Selected conversations that lost their end."""
    overlong: int
    """Left out because they are too long."""
    untrained: int
    """Left out because no target within the sequence carries loss."""


def content(split: Split) -> str:
    """Hash of a split's tokens and masks, from the manifest's hashes of the files."""
    hashes = [sorted((path, info.sha256) for path, info in shard.files.items()) for shard in split.info.shards]
    return hashlib.sha256(json.dumps([split.name, hashes]).encode()).hexdigest()


def select(split: Split, *, seq_length: int, overlong: str, every_token: bool, cache: Cache) -> Selection:
    """Choose what is trained on.

    Args:
        seq_length: positions in a sample.
        overlong: `truncate` cuts a conversation of more than seq_length + 1 tokens, `drop` leaves it out.
        every_token: the mask does not matter, every target carries loss.
        cache: where the reading of the masks is kept.
    """
    lengths = split.lengths()
    kept = np.minimum(lengths, seq_length + 1)
    long = lengths > seq_length + 1
    fits = ~long if overlong == "drop" else np.ones(len(lengths), dtype=bool)
    if every_token:
        carries, trained = kept > 1, kept - 1
    else:
        found = cache.arrays("targets", {"version": 1, "split": content(split)}, lambda: _all_targets(split))
        carries, trained = found["first"] < kept, found["count"]
        again = np.flatnonzero(long & fits & carries)
        if len(again):
            trained = trained.copy()
            trained[again] = _targets(split, again, kept[again])[1]
    chosen = fits & carries
    return Selection(
        rows=np.flatnonzero(chosen).astype(np.uint32),
        positions=kept[chosen] - 1,
        trained_tokens=int(trained[chosen].sum(dtype=np.int64)),
        cut=int((chosen & long).sum()),
        overlong=int((~fits).sum()),
        untrained=int((fits & ~carries).sum()),
    )


def _all_targets(split: Split) -> Arrays:
    first, count = _targets(split, np.arange(len(split)), split.lengths())
    return {"first": first, "count": count}


def _targets(
    split: Split, rows: NDArray[np.int64], kept: NDArray[np.int32]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The first trained target of each row (`kept` where it has none), and their number; both uint32[len(rows)].

    Token 0 is nobody's target.
    """
    first, count = kept.astype(np.uint32), np.zeros(len(rows), dtype=np.uint32)
    for mask, part, starts in _blocks(split, rows, kept):
        ones = np.flatnonzero(mask)
        begin = np.searchsorted(ones, starts + 1)
        count[part] = np.searchsorted(ones, starts + kept[part]) - begin
        there = np.flatnonzero(count[part])
        first[part.start + there] = ones[begin[there]] - starts[there]
    return first, count


def _blocks(
    split: Split, rows: NDArray[np.int64], kept: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.uint8], slice, NDArray[np.int64]]]:
    """Stretches of mask, the rows (as a slice of `rows`) that begin in them, and where, relative to the stretch."""
    begin, base = 0, 0
    for shard in split.shards:
        end = int(np.searchsorted(rows, base + len(shard.tokens)))
        starts = shard.loss_mask.starts[rows[begin:end] - base]
        base += len(shard.tokens)
        at = 0
        while at < len(starts):
            to = max(at + 1, int(np.searchsorted(starts, starts[at] + BLOCK)))
            stop = int(starts[to - 1]) + int(kept[begin + to - 1])
            yield shard.loss_mask.items[starts[at] : stop], slice(begin + at, begin + to), starts[at:to] - starts[at]
            at = to
        begin = end
