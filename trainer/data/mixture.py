"""The mixture: pack plans with weights as one endless sequence of samples, where item i is a pure function of i.

A source is a directory, or what the sources of one weight have in it. Its weight w is its epochs per epoch of
the mixture: 1 shows each of its n packs once, 2 twice, and 0.3 shows the next 30% of them. Draw j of a source is its
pack j mod n. Epoch e of the mixture makes the draws floor(e·w·n) to floor((e + 1)·w·n) of each source, computed in
fractions, so that after any number of epochs no source is off by a whole pack.

    n = 3 packs, w = 1/2:  epoch 0 makes draw 0 (pack 0), epoch 1 draws 1, 2 (packs 1, 2), epoch 2 draw 3 (pack 0)

Within an epoch every draw gets a random word from a stream of its own source, and the draws are sorted by word. A
source that is added comes between the draws of the others and does not change their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards.packing import random_words
from sft_shards.trainer.data.pack_plan import Counts, Plan


@dataclass(frozen=True, kw_only=True)
class Source:
    """A directory in a mixture, or the part of one whose sources have the same weight."""

    name: str
    """Short name for messages, different from those of the other sources."""
    weight: Fraction
    """Epochs of this source per epoch of the mixture, above 0."""
    plan: Plan


class Mixture:
    """Draws from sources; item i does not depend on what was asked for before."""

    def __init__(self, sources: Sequence[Source], *, seed: int) -> None:
        self.sources = tuple(sources)
        self.seed = seed
        twins: Counter[str] = Counter()
        self._streams = []  # one that is named twice has two streams
        for source in self.sources:
            self._streams.append(f"{source.plan.identity}/{twins[source.plan.identity]}")
            twins[source.plan.identity] += 1
        self._rate = sum((source.weight * len(source.plan) for source in self.sources), Fraction(0))  # samples an epoch
        self._orders: dict[int, NDArray[np.uint32]] = {}

    @property
    def counts(self) -> Counts:
        """The counts of all sources added up, without weights."""
        total = self.sources[0].plan.counts
        for source in self.sources[1:]:
            total += source.plan.counts
        return total

    def samples(self, epochs: Fraction | int) -> int:
        """Return the number of samples in the first `epochs` epochs."""
        return sum(_draws(source, epochs) for source in self.sources)

    def locate(self, item: int) -> tuple[int, int]:
        """Return the number of the source and the number of its pack that item `item` shows."""
        epoch = int(item / self._rate)
        while self.samples(epoch) > item:
            epoch -= 1
        while self.samples(epoch + 1) <= item:
            epoch += 1
        draw = int(self._order(epoch)[item - self.samples(epoch)])
        for number, source in enumerate(self.sources):
            first = _draws(source, epoch)
            here = _draws(source, epoch + 1) - first
            if draw < here:
                return number, (first + draw) % len(source.plan)
            draw -= here
        raise AssertionError(f"draw {draw} is beyond the last source")

    def _order(self, epoch: int) -> NDArray[np.uint32]:
        """Return uint32[samples of the epoch]: its draws, numbered source after source, in training order."""
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch spans two epochs at most
                self._orders.pop(min(self._orders))
            parts = [_draws(source, epoch + 1) - _draws(source, epoch) for source in self.sources]
            words = np.empty(sum(parts), dtype=np.uint64)
            at = 0
            for stream, count in zip(self._streams, parts, strict=True):
                words[at : at + count] = random_words(count, self.seed, stream, "draws", epoch)
                at += count
            # High half: random word; low half: number of the draw. The keys are distinct, so there is only one order.
            words &= np.uint64(0xFFFF_FFFF_0000_0000)
            words |= np.arange(len(words), dtype=np.uint64)
            words.sort()
            self._orders[epoch] = words.astype(np.uint32)
        return self._orders[epoch]


def _draws(source: Source, epochs: Fraction | int) -> int:
    """Return the draws of a source in the first `epochs` epochs: floor(epochs x weight x packs), in integers."""
    whole = epochs.numerator * source.weight.numerator * len(source.plan)
    return whole // (epochs.denominator * source.weight.denominator)
