"""Conversations as training samples: item *i* is a pure function of *i*, so that resuming is counting.

A stored conversation of L tokens has L - 1 positions: position p sees tokens[..p] and its label is tokens[p + 1].
The stored loss mask is unshifted (entry i: does token i, as a target, carry loss), so labels and mask shift
together: `labels = tokens[1:]`, `loss_mask = mask[1:]`. `--seq-length` N holds conversations of up to N + 1 tokens.

One conversation per sample, padded on the right; whatever depends on all conversations at once is numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.shards import Split

Sample = dict[str, NDArray[Any]]
"""`tokens` and `labels` int64[N], `loss_mask` float32[N] (0 or 1, aligned with `labels`)."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The conversations of some splits that are trained on, numbered one directory after the other."""

    splits: tuple[Split, ...]
    rows: NDArray[np.int64]
    """int64[n], in rising order: numbers over all splits."""
    stored: int
    """Conversations on disk."""
    tokens: int
    """Tokens of the selected conversations, after the cut."""
    trained_tokens: int
    """Targets that carry loss, after the cut."""
    cut: int
    """Selected conversations that lost their end."""
    overlong: int
    """Left out because they are too long."""
    untrained: int
    """Left out because no target within the sequence carries loss."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Ids [L] and unshifted mask [L] of the selected conversation `index`, whole."""
        row = int(self.rows[index])
        for split in self.splits:
            if row < len(split):
                return split[row]
            row -= len(split)
        raise AssertionError(f"row {row} is beyond the last split")


def select(splits: Sequence[Split], *, seq_length: int, overlong: str) -> Selection:
    """Choose what is trained on.

    Args:
        seq_length: positions in a sample; a conversation may have one token more.
        overlong: `truncate` cuts a longer one at the token, `drop` leaves it out.
    """
    rows: list[NDArray[np.int64]] = []
    tokens = trained_tokens = cut = left_long = untrained = stored = 0
    for split in splits:
        for shard in split.shards:
            lengths = shard.tokens.lengths.astype(np.int64)
            kept = np.minimum(lengths, seq_length + 1)
            trained = _trained(shard.loss_mask.items, shard.loss_mask.starts, kept)
            long = lengths > seq_length + 1
            fits = ~long if overlong == "drop" else np.ones(len(lengths), dtype=bool)
            chosen = fits & (trained > 0)
            rows.append(np.flatnonzero(chosen) + stored)
            stored += len(lengths)
            tokens += int(kept[chosen].sum())
            trained_tokens += int(trained[chosen].sum())
            cut += int((chosen & long).sum())
            left_long += int((~fits).sum())
            untrained += int((fits & (trained == 0)).sum())
    return Selection(
        splits=tuple(splits),
        rows=np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64),
        stored=stored,
        tokens=tokens,
        trained_tokens=trained_tokens,
        cut=cut,
        overlong=left_long,
        untrained=untrained,
    )


def _trained(mask: NDArray[np.uint8], starts: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[S]: targets with loss among tokens 1..kept-1 of each sequence (token 0 is nobody's target)."""
    # reduceat over pairs (first target, end): every other sum is a sequence's, the ones between are gaps.
    edges = np.empty(2 * len(starts), dtype=np.int64)
    edges[0::2] = starts + 1
    edges[1::2] = starts + kept
    inside = np.minimum(edges, len(mask) - 1)
    sums = np.add.reduceat(mask, inside, dtype=np.int64)[0::2]
    last_runs_on = edges[-1] == len(mask) and inside[-2] < inside[-1]
    if last_runs_on:  # reduceat cannot end at len(mask): the last target is the part that was cut off
        sums[-1] += int(mask[-1])
    return np.where(kept > 1, sums, 0)


def sample(ids: NDArray[Any], mask: NDArray[np.uint8], *, seq_length: int, pad_id: int) -> Sample:
    """One conversation as a padded sample; what is beyond `seq_length` + 1 tokens is cut off."""
    count = min(len(ids), seq_length + 1) - 1
    tokens = np.full(seq_length, pad_id, dtype=np.int64)
    labels = np.full(seq_length, pad_id, dtype=np.int64)
    loss_mask = np.zeros(seq_length, dtype=np.float32)
    tokens[:count] = ids[:count]
    labels[:count] = ids[1 : count + 1]
    loss_mask[:count] = mask[1 : count + 1]
    return {"tokens": tokens, "labels": labels, "loss_mask": loss_mask}


def permutation(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch, int64[count].

    Sorted raw words of Philox, because numpy promises the stream of a bit generator for ever and the result of
    `Generator.permutation` only within a release (NEP 19): a run may be resumed with another numpy.
    """
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(count)
    return np.argsort(words, kind="stable")


class TrainSamples:
    """Epoch after epoch over a selection, each in its own seeded order."""

    def __init__(self, selection: Selection, *, seq_length: int, pad_id: int, seed: int, count: int) -> None:
        self.selection = selection
        self.seq_length = seq_length
        self.pad_id = pad_id
        self.seed = seed
        self.count = count
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return self.count

    def index(self, item: int) -> int:
        """The selected conversation that sample `item` shows."""
        epoch, place = divmod(item, len(self.selection))
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch spans two epochs at most
                self._orders.pop(min(self._orders))
            self._orders[epoch] = permutation(len(self.selection), seed=self.seed, epoch=epoch)
        return int(self._orders[epoch][place])

    def __getitem__(self, item: int) -> Sample:
        if not 0 <= item < self.count:
            raise IndexError(f"sample {item} is outside 0..{self.count - 1}")
        ids, mask = self.selection.read(self.index(item))
        return sample(ids, mask, seq_length=self.seq_length, pad_id=self.pad_id)


class EvalSamples:
    """The same pass again and again, in one seeded order; what a pass has beyond the selection carries no loss.

    With a pass of `ceil(n / batch) * batch` samples an evaluation sees every conversation exactly once, and the
    token-weighted mean is that of the whole split. A shorter pass is the same part of it each time.
    """

    split: Any = None
    """Megatron's name for the split, set by the provider."""

    def __init__(
        self, selection: Selection, *, seq_length: int, pad_id: int, seed: int, period: int, count: int
    ) -> None:
        self.selection = selection
        self.seq_length = seq_length
        self.pad_id = pad_id
        self.period = period
        self.count = count
        self._order = permutation(len(selection), seed=seed, epoch=0)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> Sample:
        if not 0 <= item < self.count:
            raise IndexError(f"sample {item} is outside 0..{self.count - 1}")
        place = item % self.period
        if place < len(self.selection):
            ids, mask = self.selection.read(int(self._order[place]))
        else:
            ids, mask = np.full(1, self.pad_id), np.zeros(1, dtype=np.uint8)
        return sample(ids, mask, seq_length=self.seq_length, pad_id=self.pad_id)
