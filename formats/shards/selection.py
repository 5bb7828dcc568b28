"""Select the conversations of a split that are trained on: those with a trained target within the sequence.

A conversation of L tokens has L - 1 positions, so a sequence of N positions holds up to N + 1 tokens; a longer
conversation is cut there or left out. Only the stored mask says whether what remains carries loss. It is read once per
split, in blocks of whole conversations. The first trained target and the number of trained targets of each
conversation (8 bytes) do not depend on the sequence length, so that the trainer keeps them in its cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards.directory import Split
from sft_shards.formats.shards.packing import Packs, pack

BLOCK = 1 << 22
"""Mask entries that are read together, at least one conversation."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The trained targets of every conversation of a split; token 0 is nobody's target."""

    first: NDArray[np.uint32]
    """uint32[S]: the first token that carries loss; the number of tokens where none does."""
    count: NDArray[np.uint32]
    """uint32[S]: how many tokens carry loss."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected conversations of a split, and counts for the summary."""

    rows: NDArray[np.uint32]
    """uint32[n], rising: row numbers of the split."""
    positions: NDArray[np.int32]
    """int32[n]: positions that each row takes, 1..seq_length."""
    trained_tokens: int
    """Targets that carry loss within the sequence."""
    cut: int
    """Selected conversations whose end is cut off."""
    overlong: int
    """Conversations left out because they are longer than seq_length + 1 tokens."""
    untrained: int
    """Conversations left out because no target within the sequence carries loss."""

    def packed(self, split: Split, *, seq_length: int, seed: int, multiple: int = 1) -> Packs:
        """Pack the selected conversations into samples; items are row numbers of the split.

        Args:
            seq_length: positions of a sample.
            seed: of the shuffling.
            multiple: each conversation takes a multiple of so many positions; it divides `seq_length`.
        """
        packs = pack(rounded_up(self.positions, multiple), seq_length, seed, content(split))
        return Packs(items=self.rows[packs.items], bounds=packs.bounds)


def rounded_up(positions: NDArray[Any], multiple: int) -> NDArray[np.int64]:
    """Return int64[n]: the next multiple of each number; 3 and 4 become 4 and 4 for multiples of 4."""
    return -(-positions.astype(np.int64) // multiple) * multiple


def content(split: Split) -> str:
    """Return a hash of a split's tokens and masks, made from the hashes of its files in the manifest."""
    hashes = [sorted((path, info.sha256) for path, info in shard.files.items()) for shard in split.info.shards]
    return hashlib.sha256(json.dumps([split.name, hashes]).encode()).hexdigest()


def select(
    split: Split,
    *,
    seq_length: int,
    overlong: str,
    every_token: bool,
    targets: Callable[[Split], Targets] | None = None,
) -> Selection:
    """Select what is trained on.

    Args:
        seq_length: positions in a sample.
        overlong: `truncate` cuts a conversation of more than seq_length + 1 tokens, `drop` leaves it out.
        every_token: ignore the mask; every target carries loss.
        targets: gives the targets of the split, where every token is not one (default: the masks are read).
    """
    lengths = split.lengths()
    kept = np.minimum(lengths, seq_length + 1)  # tokens of each conversation that are used
    long = lengths > seq_length + 1
    fits = ~long if overlong == "drop" else np.ones(len(lengths), dtype=bool)
    if every_token:
        carries, trained = kept > 1, kept - 1
    else:
        found = (targets or all_targets)(split)
        carries, trained = found.first < kept, found.count
        cut = np.flatnonzero(long & fits & carries)
        if len(cut):  # their cached numbers count targets beyond the cut
            trained = trained.copy()
            trained[cut] = _targets(split, cut, kept[cut])[1]
    chosen = fits & carries
    return Selection(
        rows=np.flatnonzero(chosen).astype(np.uint32),
        positions=kept[chosen] - 1,
        trained_tokens=int(trained[chosen].sum(dtype=np.int64)),
        cut=int((chosen & long).sum()),
        overlong=int((~fits).sum()),
        untrained=int((fits & ~carries).sum()),
    )


def all_targets(split: Split) -> Targets:
    """Read the masks of a split, and return the targets of every conversation."""
    first, count = _targets(split, np.arange(len(split)), split.lengths())
    return Targets(first=first, count=count)


def _targets(
    split: Split, rows: NDArray[np.int64], kept: NDArray[np.int32]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the first trained target of each row and the number of its trained targets, both uint32[len(rows)].

    A row without a trained target has `kept` as its first. Token 0 is the target of no position and never counts:
    of a conversation with the mask 1 0 1 the first trained target is token 2, and there is 1.

    Args:
        rows: int64[n], rising row numbers.
        kept: int32[n], tokens of each row to look at, from its first.
    """
    first, count = kept.astype(np.uint32), np.zeros(len(rows), dtype=np.uint32)
    for mask, part, starts in mask_blocks(split, rows, kept):
        ones = np.flatnonzero(mask)
        begin = np.searchsorted(ones, starts + 1)
        count[part] = np.searchsorted(ones, starts + kept[part]) - begin
        there = np.flatnonzero(count[part])
        first[part.start + there] = ones[begin[there]] - starts[there]
    return first, count


def mask_blocks(
    split: Split, rows: NDArray[np.int64], kept: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.uint8], slice, NDArray[np.int64]]]:
    """Yield blocks of mask entries with the rows that begin in them.

    Yields:
        The mask entries, uint8; the rows as a slice of `rows`; and int64, the offset of each row's first entry within
        the block. Rows of 3 and 2 tokens that follow each other are one block of 5 entries, with offsets 0 and 3.
    """
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
