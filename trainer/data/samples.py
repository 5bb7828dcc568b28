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

from collections.abc import Sequence
from typing import Any

import numpy as np

from sft_shards.trainer.data.mixture import Mixture
from sft_shards.trainer.data.packing import shuffled
from sft_shards.trainer.data.shards import Reader, Sample


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
