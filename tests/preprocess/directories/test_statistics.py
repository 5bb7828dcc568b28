"""Statistics of a directory, counted again from its sequences one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, config
from toy_runs import turn, write_shards

from sft_shards.formats.shards import ShardDirectory
from sft_shards.preprocess.directories.statistics import Statistics, doubling, statistics
from sft_shards.preprocess.job import run
from sft_shards.preprocess.tasks.losses import read_losses
from sft_shards.preprocess.tasks.writer import read_rejects, read_rows

pytestmark = pytest.mark.unit

LENGTHS = (64, 256)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output: Path = tmp_path_factory.mktemp("made") / "out"
    run(config(INPUTS, shard_tokens=20_000), output, workers=1)
    return output


@pytest.fixture(scope="module")
def found(made: Path) -> Statistics:
    return statistics(made, seq_lengths=LENGTHS)


def sequences(directory: Path, split: str) -> list[tuple[list[int], list[int]]]:
    rows = ShardDirectory(directory).split(split)
    return [(tokens.tolist(), mask.tolist()) for tokens, mask in (rows[row] for row in range(len(rows)))]


def test_lengths_and_trained_shares(made: Path, found: Statistics) -> None:
    assert [split.name for split in found.splits] == ["train", "valid"]
    for split in found.splits:
        rows = sequences(made, split.name)
        lengths = sorted(len(tokens) for tokens, _ in rows)
        assert (
            (split.lengths.count, split.lengths.total) == (len(rows), sum(lengths)) == (split.sequences, split.tokens)
        )
        assert (split.lengths.smallest, split.lengths.largest) == (lengths[0], lengths[-1])
        for percent, value in split.lengths.percentiles.items():
            assert sum(length <= value for length in lengths) >= percent / 100 * len(lengths)
            assert sum(length < value for length in lengths) < percent / 100 * len(lengths)
        bounds = split.lengths.bounds
        assert list(split.lengths.bins) == [
            sum(low <= length < high for length in lengths) for low, high in itertools.pairwise(bounds)
        ]
        assert split.trained_tokens == sum(sum(mask) for _, mask in rows)
        shares = [min(9, round(100 * sum(mask[1:]) / len(mask)) // 10) for _, mask in rows]
        assert list(split.trained_shares.bins) == [Counter(shares)[bin_] for bin_ in range(10)]


def test_sources_are_what_the_rows_say(made: Path, found: Statistics) -> None:
    for split in found.splits:
        counted: dict[str, list[int]] = {}
        for path in sorted((made / split.name / "rows").iterdir()):
            for row in read_rows(path).to_pylist():
                sums = counted.setdefault(row["source"], [0, 0, 0])
                for place, value in enumerate((1, row["tokens"], row["trained_tokens"])):
                    sums[place] += value
        assert {one.path: [one.sequences, one.tokens, one.trained_tokens] for one in split.sources} == counted
        assert sum(one.share for one in split.sources) == pytest.approx(1)


@pytest.mark.parametrize("overlong", ["truncate", "drop"])
def test_what_a_sequence_length_does(made: Path, overlong: str) -> None:
    split = statistics(made, seq_lengths=LENGTHS, overlong=overlong).splits[0]
    rows = sequences(made, "train")
    for fit in split.fits:
        fits = [(tokens, mask) for tokens, mask in rows if overlong == "truncate" or len(tokens) <= fit.seq_length + 1]
        kept = [mask[1 : fit.seq_length + 1] for _, mask in fits]
        trained = [mask for mask in kept if sum(mask)]
        assert fit.conversations == len(trained)
        assert fit.dropped == len(rows) - len(fits)
        assert fit.untrained == len(kept) - len(trained)
        assert fit.positions == sum(map(len, trained))
        assert fit.trained_tokens == sum(map(sum, trained))
        assert fit.lost_tokens == sum(sum(mask[1:]) for _, mask in rows) - fit.trained_tokens
        assert fit.cut == sum(
            len(mask) - 1 > fit.seq_length and sum(mask[1 : fit.seq_length + 1]) > 0 for _, mask in fits
        )
        assert fit.positions <= fit.packs * fit.seq_length
        assert fit.fill == fit.positions / (fit.packs * fit.seq_length)


def test_steps_of_an_epoch_are_rounded_up(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": [turn([11], [21, 22])] * 5})  # 6 tokens each: 5 positions, one a sample of 8
    fit = statistics(tmp_path, seq_lengths=(8,)).splits[0].fits[0]
    assert (fit.packs, fit.steps(2), fit.steps(5), fit.steps(100)) == (5, 3, 1, 1)


def test_bins_reach_above_the_largest() -> None:
    assert doubling(15) == (1, 16)
    assert doubling(16) == (1, 16, 32)


def test_losses_are_what_the_rejects_say(made: Path) -> None:
    lines = list(read_rejects(made))
    losses = read_losses(made)
    assert lines
    assert {(loss.source, loss.reason): loss.records for loss in losses} == Counter(
        (line.source, line.reason) for line in lines
    )
    for loss in losses:
        same = [line for line in lines if (line.source, line.reason) == (loss.source, loss.reason)]
        assert (loss.first, loss.detail) == (same[0].record, same[0].detail)
