"""What a finished shard directory holds, in numbers: sources, lengths, trained shares, and how it packs.

    manifest ──▶ per source: sequences, tokens, trained tokens
    indexes and masks ──▶ lengths and trained shares, per sequence length what is cut, how it packs, how full packs are

`stats`, `report` and the Python API print the same numbers. The masks are read once, which is what takes the time
(about 1 GB/s); selection and packing are those of the trainer (`formats.shards.selection`, `packing`), so that the
number of samples is the trainer's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.shards import Manifest, ShardDirectory, Split, WeightedPart
from sft_shards.formats.shards.packing import SEED
from sft_shards.formats.shards.selection import Selection, Targets, all_targets, select

SEQ_LENGTHS = (2048, 4096, 8192)
"""Sequence lengths for which packing is tried if none is named."""
PERCENTS = (1, 5, 25, 50, 75, 90, 95, 99)
"""Percentiles that are given."""
SHARES = tuple(range(0, 101, 10))
"""Bounds of the bins of trained shares, in percent; the last bin holds 100 as well."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How one whole number of every sequence is distributed, such as its tokens."""

    count: int
    """Sequences."""
    total: int
    smallest: int
    largest: int
    percentiles: dict[int, int]
    """By percent: the smallest value that so many percent of the sequences do not exceed."""
    bounds: tuple[int, ...]
    """Bin i holds values in [bounds[i], bounds[i + 1]), the last bin its upper bound as well."""
    bins: tuple[int, ...]
    """Sequences in each bin, one less than bounds."""

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 where there is nothing."""
        return self.total / self.count if self.count else 0.0

    @classmethod
    def of(cls, values: NDArray[Any], bounds: Sequence[int]) -> Distribution:
        """Sum up values, int[n], all of which lie within `bounds`.

        >>> found = Distribution.of(np.array([3, 1, 2, 9]), (0, 4, 10))
        >>> found.percentiles[50], found.bins, found.mean
        (2, (3, 1), 3.75)
        """
        percentiles = dict.fromkeys(PERCENTS, 0)
        if len(values):
            found = np.percentile(values, PERCENTS, method="inverted_cdf")
            percentiles = dict(zip(PERCENTS, map(int, found), strict=True))
        return cls(
            count=len(values),
            total=int(values.sum(dtype=np.int64)),
            smallest=int(values.min()) if len(values) else 0,
            largest=int(values.max()) if len(values) else 0,
            percentiles=percentiles,
            bounds=tuple(bounds),
            bins=tuple(np.histogram(values, bounds)[0].tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class SourceStatistics:
    """What one source file became in one split."""

    path: str
    sequences: int
    tokens: int
    trained_tokens: int
    share: float
    """Of the tokens of the split."""
    trained_share: float
    """Trained tokens of its tokens."""
    weight: float
    """How often training shows it for each time that it shows a source without a weight; evaluation knows none."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What becomes of a split at one sequence length, with packed batching."""

    seq_length: int
    """Positions of a sample; a conversation of L tokens takes L - 1 of them."""
    overlong: str
    """What is done with conversations that do not fit: `truncate` or `drop`."""
    conversations: int
    """Conversations in the samples."""
    cut: int
    """Of these, those whose end is cut off."""
    dropped: int
    """Conversations left out because they do not fit (`drop`)."""
    untrained: int
    """Conversations left out because no token within the sequence carries loss."""
    packs: int
    """Samples of an epoch."""
    fill: float
    """Share of the samples' positions that hold a token."""
    positions: int
    """Positions of an epoch that hold a token; where sources have weights, on average over many epochs."""
    trained_tokens: int
    """Positions of an epoch whose label carries loss; likewise."""
    lost_tokens: int
    """Trained tokens of the split that no sample has, because of what is cut and left out."""

    def steps(self, global_batch: int) -> int:
        """Return the steps of an epoch, as `sft-train --epochs 1` takes them.

        Args:
            global_batch: samples of a step.
        """
        return -(-self.packs // global_batch)


@dataclass(frozen=True, kw_only=True)
class SplitStatistics:
    """One split in numbers."""

    name: str
    sequences: int
    tokens: int
    trained_tokens: int
    sources: tuple[SourceStatistics, ...]
    """In the order of the manifest, those that have sequences in the split."""
    lengths: Distribution
    """Tokens of each sequence, in bins that double."""
    trained_shares: Distribution
    """Trained tokens of each sequence, in whole percent of its tokens, rounded."""
    fits: tuple[Fit, ...]
    """By sequence length, in the order asked for."""

    @property
    def trained_share(self) -> float:
        """Trained tokens of all tokens."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A shard directory in numbers."""

    directory: str
    read: int
    """Records that were read."""
    written: int
    """Records that became sequences."""
    splits: tuple[SplitStatistics, ...]
    """Those that have sequences, in the order of the manifest."""


def statistics(
    directory: Path,
    *,
    seq_lengths: Sequence[int] = SEQ_LENGTHS,
    overlong: str = "truncate",
    seed: int = SEED,
    targets: Callable[[Split], Targets] = all_targets,
) -> Statistics:
    """Read a directory's manifest, indexes and masks, and sum them up.

    Args:
        seq_lengths: positions of a sample, for each of which packing is tried.
        overlong: `truncate` cuts conversations that do not fit, `drop` leaves them out.
        seed: of the trainer, which shuffles packs; their number does not depend on it.
        targets: gives those of a split; for a caller who has them already.

    Raises:
        DataError: it is not a complete shard directory, or a file is damaged.
    """
    shards = ShardDirectory(directory)
    manifest = shards.manifest
    return Statistics(
        directory=str(directory),
        read=manifest.counts.read,
        written=manifest.counts.written,
        splits=tuple(
            _split(shards, name, seq_lengths, overlong=overlong, seed=seed, targets=targets) for name in manifest.splits
        ),
    )


def doubling(largest: int) -> tuple[int, ...]:
    """Return bounds of bins that double, from 1 to above the largest value, without leading bins below 16.

    >>> doubling(100)
    (1, 16, 32, 64, 128)
    """
    bounds = [1, 16]
    while bounds[-1] <= largest:
        bounds.append(bounds[-1] * 2)
    return tuple(bounds)


def source_statistics(manifest: Manifest, split: str) -> tuple[SourceStatistics, ...]:
    """Sum up what each source file became in a split, from the manifest alone: a shard is of one source."""
    info = manifest.splits[split]
    shards = {shard.name: shard for shard in info.shards}
    sums: dict[str, Counter[str]] = {}
    weights = {source.path: float(source.weight) for source in manifest.sources}
    for source in manifest.sources:
        for part in source.parts:
            if split in part.shards:
                shard = shards[part.shards[split]]
                counts = {"sequences": shard.sequences, "tokens": shard.tokens, "trained_tokens": shard.trained_tokens}
                sums.setdefault(source.path, Counter()).update(counts)
    return tuple(
        SourceStatistics(
            path=path,
            sequences=counts["sequences"],
            tokens=counts["tokens"],
            trained_tokens=counts["trained_tokens"],
            share=counts["tokens"] / info.tokens,
            trained_share=counts["trained_tokens"] / counts["tokens"],
            weight=weights[path],
        )
        for path, counts in sums.items()
    )


def fit(
    parts: Sequence[WeightedPart], targets: Targets, *, seq_length: int, overlong: str = "truncate", seed: int = SEED
) -> Fit:
    """Select and pack the conversations of a split as the trainer does, and sum up what came of it.

    Args:
        parts: of the split, by weight.
        targets: of the whole split, see `all_targets`.
        seq_length, overlong, seed: see `statistics`.
    """
    packs, sums = 0, Counter[str]()
    for part in parts:
        own = Targets(first=targets.first[part.rows], count=targets.count[part.rows])
        chosen = _selection(part.split, own, seq_length=seq_length, overlong=overlong)
        count = len(chosen.packed(part.split, seq_length=seq_length, seed=seed).bounds) - 1
        packs += floor(part.weight * count)
        sums["conversations"] += len(chosen.rows)
        sums["cut"] += chosen.cut
        sums["dropped"] += chosen.overlong
        sums["untrained"] += chosen.untrained
        sums["room"] += floor(part.weight * count * seq_length)
        sums["positions"] += round(part.weight * int(chosen.positions.sum(dtype=np.int64)))
        sums["trained_tokens"] += round(part.weight * chosen.trained_tokens)
        sums["lost_tokens"] += int(own.count.sum(dtype=np.int64)) - chosen.trained_tokens
    return Fit(
        seq_length=seq_length,
        overlong=overlong,
        conversations=sums["conversations"],
        cut=sums["cut"],
        dropped=sums["dropped"],
        untrained=sums["untrained"],
        packs=packs,
        fill=sums["positions"] / sums["room"] if sums["room"] else 0.0,
        positions=sums["positions"],
        trained_tokens=sums["trained_tokens"],
        lost_tokens=sums["lost_tokens"],
    )


def _selection(split: Split, targets: Targets, *, seq_length: int, overlong: str) -> Selection:
    return select(split, seq_length=seq_length, overlong=overlong, every_token=False, targets=lambda _: targets)


def _split(
    directory: ShardDirectory,
    name: str,
    seq_lengths: Sequence[int],
    *,
    overlong: str,
    seed: int,
    targets: Callable[[Split], Targets],
) -> SplitStatistics:
    split = directory.split(name)
    parts = directory.by_weight(split)
    lengths, own = split.lengths(), targets(split)
    percent = np.rint(100.0 * own.count / lengths).astype(np.int64)
    return SplitStatistics(
        name=split.name,
        sequences=len(split),
        tokens=split.info.tokens,
        trained_tokens=split.info.trained_tokens,
        sources=source_statistics(directory.manifest, name),
        lengths=Distribution.of(lengths, doubling(split.info.longest)),
        trained_shares=Distribution.of(percent, SHARES),
        fits=tuple(fit(parts, own, seq_length=each, overlong=overlong, seed=seed) for each in seq_lengths),
    )
