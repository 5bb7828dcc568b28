"""Deal the samples of each global batch to data-parallel ranks so that all ranks take the same time.

Packs hold equal numbers of positions, but attention costs the square of each conversation's length, so ranks wait for
the one that got the long conversations. Gradients are summed over a global batch, so its samples may change places
without changing the step: every global batch holds the samples that it holds without balancing, and a run that is
resumed on another layout goes on with the same ones.

    costs 9 1 8 2, two ranks, one row:  places 0 1 2 3 take the items 0 2 1 3;  rank 0 has 9 + 1, rank 1 has 8 + 2

Megatron's sampler gives place p of a global batch to micro-batch p // (ranks x rows), and there to rank
(p // rows) % ranks. Every rank takes its samples in order of falling cost, so that the ranks of one micro-batch, which
wait for each other where experts are spread over them, have similar ones. Pipeline stages idle less in this order than
in the mixture's (`benchmarks/balance.py --stages`), so samples are dealt to a single rank that has several stages too.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """The estimated cost of a sample, in units that only ratios matter of.

    A transformer layer multiplies each position with its weights, which is linear, and each position with those before
    it in the same conversation, which is quadratic in the conversation's length.
    """

    linear: int
    """Cost of a position: multiplications with the weights of a layer."""
    quadratic: int
    """Cost of a pair of positions in the scores and in the weighted sum of a layer."""

    def of(self, positions: int, squares: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64[n]: the cost of samples.

        Args:
            positions: positions of a sample, all of which are computed, padding too.
            squares: int64[n], the sum of the squares of the lengths of each sample's conversations.
        """
        return self.linear * positions + self.quadratic * squares // 2


def deal(costs: Sequence[int] | NDArray[np.int64], *, ranks: int, rows: int) -> NDArray[np.int64]:
    """Return int64[B]: the item that each place of a global batch takes.

    The longest sample goes to the rank with the least so far that still has a place (LPT, Graham 1969, with equal
    numbers of samples). It depends on the costs alone.

    Args:
        costs: of the B items of a global batch.
        ranks: data-parallel ranks; `ranks x rows` divides B.
        rows: samples of a micro-batch on one rank.
    """
    size = len(costs)
    each, left = divmod(size, ranks * rows)
    assert not left, "a global batch is a whole number of micro-batches"
    values = np.asarray(costs, dtype=np.int64)
    heap = [(0, rank) for rank in range(ranks)]
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for item in np.argsort(-values, kind="stable").tolist():
        total, rank = heapq.heappop(heap)
        dealt[rank].append(item)
        if len(dealt[rank]) < each * rows:
            heapq.heappush(heap, (total + int(values[item]), rank))
    own = _exchanged(np.asarray(dealt, dtype=np.int64), values)
    falling = np.take_along_axis(own, np.argsort(-values[own], axis=1, kind="stable"), axis=1)
    return falling.reshape(ranks, each, rows).transpose(1, 0, 2).reshape(size)


def _exchanged(dealt: NDArray[np.int64], costs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `dealt` after the most loaded rank has exchanged samples with others as long as that makes it faster.

    Of all exchanges of one sample for one, the one is made that leaves the slower of the two ranks the least. Sums
    10 (of 7 3) and 4 (of 3 1) become 8 and 6 by exchanging 3 and 1.

    Args:
        dealt: int64[ranks, samples of a rank]: items.
        costs: int64[B], by item.
    """
    sums = costs[dealt].sum(axis=1)
    for _ in range(2 * len(dealt)):
        most = int(sums.argmax())
        # What the most loaded rank would save, by its own sample, the other rank and that one's sample.
        saved = costs[dealt[most]][:, None, None] - costs[dealt][None, :, :]
        slower = np.maximum(sums[most] - saved, sums[None, :, None] + saved)
        slower[:, most, :] = sums[most]
        at, rank, other = np.unravel_index(int(slower.argmin()), slower.shape)
        if slower[at, rank, other] >= sums[most]:
            break
        gain = saved[at, rank, other]
        dealt[most, at], dealt[rank, other] = dealt[rank, other], dealt[most, at]
        sums[most] -= gain
        sums[rank] += gain
    return dealt


def waiting(costs: NDArray[np.int64], *, ranks: int, rows: int) -> float:
    """Return the share of all ranks' time in which they wait for the slowest one at the end of a step.

    Args:
        costs: int64[B], in the order of their places in the global batch.
        ranks, rows: as for `deal`.
    """
    sums = costs.reshape(-1, ranks, rows).sum(axis=(0, 2))
    return 1 - float(sums.mean()) / float(sums.max())


@runtime_checkable
class CostedSamples(Protocol):
    """A map-style data set that knows what its items cost."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, item: int) -> Any:
        """Return an item."""

    def cost(self, item: int) -> int:
        """Return the estimated cost of an item."""


class BalancedSamples:
    """The items of a data set, dealt anew within each global batch; item i is a pure function of i and the layout.

    Args:
        samples: the data set.
        batch: items of a global batch.
        ranks, rows: as for `deal`.
        consumed: items that earlier parts of the run consumed, whatever their layout was. Global batches are counted
            from there, so that no item that was consumed takes the place of one that was not.
    """

    def __init__(self, samples: CostedSamples, *, batch: int, ranks: int, rows: int, consumed: int = 0) -> None:
        self.samples = samples
        self.batch, self.ranks, self.rows = batch, ranks, rows
        self.offset = consumed % batch
        self._first, self._order = -1, np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: int) -> Any:
        return self.samples[self.item(item)]

    def item(self, place: int) -> int:
        """Return the number of the item at a place of the run; the places of an incomplete batch keep theirs."""
        first = (place - self.offset) // self.batch * self.batch + self.offset
        if first < 0 or first + self.batch > len(self.samples):
            return place
        if first != self._first:
            costs = [self.samples.cost(number) for number in range(first, first + self.batch)]
            self._first, self._order = first, deal(costs, ranks=self.ranks, rows=self.rows)
        return first + int(self._order[place - first])
