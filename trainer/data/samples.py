"""Training and validation samples as map-style data sets: item i is a pure function of i, so that resuming is counting.

Megatron resumes a run by the number of samples it has consumed. `TrainSamples` orders packs by the mixture,
`EvalSamples` goes over all packs in one fixed order. `sft_shards.trainer.data.shards.Reader` makes a pack a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards.packing import shuffled
from sft_shards.trainer.data.mixture import Mixture
from sft_shards.trainer.data.shards import Reader, Sample


class TrainSamples:
    """The samples of a mixture, from its first draw on.

    Args:
        costs: of each source int64[packs], what its samples cost (see `balance`); empty: nobody asks.
    """

    def __init__(
        self,
        mixture: Mixture,
        readers: Sequence[Reader],
        *,
        count: int,
        costs: Sequence[NDArray[np.int64]] = (),
    ) -> None:
        self.mixture = mixture
        self.readers = readers
        self.count = count
        self.costs = costs

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> Sample:
        if not 0 <= item < self.count:
            raise IndexError(f"sample {item} is outside 0..{self.count - 1}")
        source, number = self.mixture.locate(item)
        return self.readers[source][number]

    def cost(self, item: int) -> int:
        """Return the estimated cost of an item."""
        source, number = self.mixture.locate(item)
        return int(self.costs[source][number])


class EvalSamples:
    """The packs of all validation splits in one shuffled order, repeated after `period` items.

    Items of a period beyond the last pack are padding and carry no loss. With a period of `ceil(n / batch) * batch` an
    evaluation sees every one of n packs exactly once, and its token-weighted mean is that of all splits. A shorter
    period is the same part of them each time.
    """

    split: Any = None
    """Megatron's name for the split, set by `DatasetProvider`."""

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
