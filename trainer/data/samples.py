"""Packs as training samples: item *i* is a pure function of *i*, so that resuming is counting.

A stored conversation of L tokens has L - 1 positions: position p sees tokens[..p] and its label is tokens[p + 1].
The stored loss mask is unshifted (entry i: does token i, as a target, carry loss), so labels and mask shift
together: `labels = tokens[1:]`, `loss_mask = mask[1:]`. A conversation's positions end where its last label is, so
in a pack no label belongs to the next one. `position_ids` start at 0 with every conversation, and with the padding
behind the last: they alone say where one ends.

Samples are as narrow as ids are (4 + 4 + 1 + 4 bytes a position), because they are copied between processes and to
the GPU; the forward step widens them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.trainer.data.mixture import Mixture
from sft_shards.trainer.data.pack_plan import Plan
from sft_shards.trainer.data.packing import shuffled

Sample = dict[str, Any]
"""`tokens`, `labels`, `position_ids` int32[N]; `loss_mask` uint8[N] (0 or 1, aligned with `labels`); `source` int64,
the number of the directory that all of it comes from."""
Pair = tuple[NDArray[Any], NDArray[np.uint8]]
"""Ids [L] and unshifted loss mask [L] of one conversation."""


class Reader:
    """Reads the packs of a plan out of the memory maps."""

    def __init__(self, plan: Plan, *, seq_length: int, pad_id: int, every_token: bool, source: int = 0) -> None:
        self.plan = plan
        self.seq_length = seq_length
        self.pad_id = pad_id
        self.every_token = every_token
        self.source = np.int64(source)
        self._ramp = np.arange(seq_length, dtype=np.int32)

    def conversations(self, number: int) -> list[Pair]:
        """The conversations of pack `number`, whole."""
        bounds, split = self.plan.packs.bounds, self.plan.split
        return [split[row] for row in self.plan.packs.items[bounds[number] : bounds[number + 1]].tolist()]

    def sample(self, conversations: Iterable[Pair]) -> Sample:
        """Conversations as one sample; what one has beyond `seq_length` + 1 tokens is cut off."""
        size = self.seq_length
        tokens, labels = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
        loss_mask, position_ids = np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.int32)
        parts = [(ids[: size + 1], mask[1 : size + 1]) for ids, mask in conversations]
        at = sum(len(mask) for _, mask in parts)
        if parts:  # whole columns at a time: a pack has many conversations, and each numpy call its price
            np.concatenate([ids[:-1] for ids, _ in parts], out=tokens[:at], casting="unsafe")
            np.concatenate([ids[1:] for ids, _ in parts], out=labels[:at], casting="unsafe")
            np.concatenate([mask for _, mask in parts], out=loss_mask[:at])
            np.concatenate([self._ramp[: len(mask)] for _, mask in parts], out=position_ids[:at])
        if self.every_token:
            loss_mask[:at] = 1
        tokens[at:] = self.pad_id
        labels[at:] = self.pad_id
        loss_mask[at:] = 0
        position_ids[at:] = self._ramp[: size - at]
        return {
            "tokens": tokens,
            "labels": labels,
            "loss_mask": loss_mask,
            "position_ids": position_ids,
            "source": self.source,
        }

    def __getitem__(self, number: int) -> Sample:
        return self.sample(self.conversations(number))


class TrainSamples:
    """The mixture, from its first draw on."""

    def __init__(self, mixture: Mixture, readers: Sequence[Reader], *, count: int) -> None:
        self.mixture = mixture
        self.readers = readers
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> Sample:
        if not 0 <= item < self.count:
            raise IndexError(f"sample {item} is outside 0..{self.count - 1}")
        source, number = self.mixture.locate(item)
        return self.readers[source][number]


class EvalSamples:
    """The same pass over all packs again and again, in one seeded order; what it has beyond them carries no loss.

    With a pass of `ceil(n / batch) * batch` samples an evaluation sees every conversation exactly once, and the
    token-weighted mean is that of all the splits. A shorter pass is the same part of them each time.
    """

    split: Any = None
    """Megatron's name for the split, set by the provider."""

    def __init__(self, readers: Sequence[Reader], *, seed: int, period: int, count: int) -> None:
        self.readers = readers
        self.period = period
        self.count = count
        self._bounds = np.cumsum([0] + [len(reader.plan) for reader in readers])
        self._order = shuffled(int(self._bounds[-1]), seed, "valid")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> Sample:
        if not 0 <= item < self.count:
            raise IndexError(f"sample {item} is outside 0..{self.count - 1}")
        place = item % self.period
        if place >= len(self._order):
            return self.readers[0].sample(())
        number = int(self._order[place])
        source = int(np.searchsorted(self._bounds, number, side="right")) - 1
        return self.readers[source][number - int(self._bounds[source])]
