"""`stats` as text and as JSON; the numbers are those of `test_statistics`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from preprocess_jobs import INPUTS, config

from sft_shards.preprocess.directories.statistics import Distribution, statistics
from sft_shards.preprocess.directories.stats import lines
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output: Path = tmp_path_factory.mktemp("made") / "out"
    run(config(INPUTS, shard_tokens=20_000), output, workers=1)
    return output


def test_text_has_the_numbers(preprocess, made):
    status, out, _ = preprocess("stats", made, "--seq-length", 256, "--seq-length", 600, "--global-batch", 4)
    assert status == 0
    found = statistics(made, seq_lengths=(256, 600))
    rows = [line.split() for line in out.splitlines()]
    for split in found.splits:
        for source in split.sources:
            numbers = [
                f"{source.sequences:,}",
                f"{source.tokens:,}",
                f"{source.share:.1%}",
                f"{source.trained_share:.1%}",
            ]
            assert [source.path, *numbers] in rows
        for fit in split.fits:
            assert any(
                row[:2] == [f"{fit.seq_length:,}", f"{fit.packs:,}"] and row[-1] == f"{fit.steps(4)}" for row in rows
            )
    bars = [line for line in out.splitlines() if "█" in line]
    counted = sum(int(line.split("█")[0].split()[-1].replace(",", "")) for line in bars)
    assert counted == 2 * sum(split.sequences for split in found.splits)


def test_json_has_the_numbers(preprocess, made):
    found = json.loads(preprocess("stats", made, "--json", "--seq-length", 256, "--global-batch", 4)[1])
    split = statistics(made, seq_lengths=(256,)).splits[0]
    fit = found["splits"][0]["fits"][0]
    assert (fit["packs"], fit["fill"], fit["steps"]) == (
        split.fits[0].packs,
        split.fits[0].fill,
        split.fits[0].steps(4),
    )
    assert found["splits"][0]["lengths"]["percentiles"]["50"] == split.lengths.percentiles[50]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit_the_terminal(made, width):
    for line in lines(statistics(made), global_batch=128, colour=False, width=width):
        assert len(line) < max(width, 80)


def test_a_distribution_of_nothing_is_empty():
    empty = Distribution.of(np.zeros(0, dtype=np.int64), (0, 10))
    assert (empty.count, empty.mean, empty.bins) == (0, 0.0, (0,))


def test_not_a_directory(preprocess, tmp_path):
    assert preprocess("stats", tmp_path)[0] == 1
