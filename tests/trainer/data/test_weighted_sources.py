"""Weights of the sources within one directory: each is shown as often as it says, and evaluation knows none."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from preprocess_jobs import INPUTS, config

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.rows import Origins
from sft_shards.preprocess.directories import stats
from sft_shards.preprocess.directories.packs import packed_sample
from sft_shards.preprocess.directories.report import report
from sft_shards.preprocess.directories.statistics import statistics
from sft_shards.preprocess.job import run
from sft_shards.preprocess.source_options import SourceOptions
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.mixture import Mixture
from sft_shards.trainer.stage import Stage

pytestmark = pytest.mark.unit

WEIGHTS = {"chatml_zh.jsonl": 3, "openai_tr.jsonl": 0.5, "alpaca_en.json": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("weighted") / "out"
    sources = tuple(SourceOptions(path=str(path), weight=WEIGHTS[path.name]) for path in INPUTS)
    run(config(INPUTS, sources=sources, shard_tokens=20_000), output, workers=1)
    return output


def stage(made: Path, cache: Path, *, weight: str = "1", **job: Any) -> Stage:
    setup: Any = SimpleNamespace(
        job=SimpleNamespace(**{"evaluate": None, "overlong": "truncate", "batching": "packed", "shards": (), **job}),
        args=SimpleNamespace(seed=1),
        layout=SimpleNamespace(seq_length=600, multiple=1),
        directories=(("out", Fraction(weight), ShardDirectory(made)),),
        cache=Cache(cache),
    )
    return Stage(setup)


def shown(stage: Stage, made: Path, samples: int) -> Counter[tuple[str, int]]:
    """Count how often the first samples show each conversation, by its source and record."""
    mixture, found = stage.train, Counter[tuple[str, int]]()
    assert mixture is not None
    for item in range(samples):
        number, pack = mixture.locate(item)
        origins = Origins(made, mixture.sources[number].plan.split)
        own = [origins[row] for row in rows_of(mixture, number, pack)]
        assert len({origin.source for origin in own}) == 1, "the sources of a weight are packed apart"
        found.update((Path(origin.source).name, origin.record) for origin in own)
    return found


def test_every_source_is_shown_as_often_as_its_weight_says(made: Path, tmp_path: Path) -> None:
    trained = stage(made, tmp_path)
    counts = shown(trained, made, trained.samples(Fraction(2)))
    assert {times for (name, _), times in counts.items() if name == "chatml_zh.jsonl"} == {6}
    assert {times for (name, _), times in counts.items() if name == "openai_tr.jsonl"} == {1}
    assert {times for (name, _), times in counts.items() if name == "alpaca_en.json"} == {2}
    records = {(Path(origin.source).name, origin.record) for origin in every(made)}
    assert set(counts) == records, "half an epoch twice shows all of them"


def every(made: Path) -> list[Any]:
    split = ShardDirectory(made).split("train")
    origins = Origins(made, split)
    return [origins[row] for row in range(len(split))]


def test_the_weight_of_the_directory_multiplies(made: Path, tmp_path: Path) -> None:
    once, twice = stage(made, tmp_path), stage(made, tmp_path, weight="2")
    assert once.train is not None
    assert twice.train is not None
    assert [source.weight for source in once.train.sources] == [3, Fraction(1, 2), 1]
    assert [source.weight for source in twice.train.sources] == [6, 1, 2]
    assert [source.name for source in once.train.sources] == [f"out: {path}" for path in map(str, INPUTS)]


def test_statistics_and_packs_are_the_trainers(made: Path, tmp_path: Path) -> None:
    mixture = stage(made, tmp_path).train
    assert mixture is not None
    found, _ = statistics(made, seq_lengths=(600,)).splits
    assert found.fits[0].packs == mixture.samples(1)
    epochs = 6  # every weight comes out even
    samples = [mixture.locate(item) for item in range(mixture.samples(epochs))]
    positions = sum(
        len(mixture.sources[number].plan.split[row][0][:601]) - 1
        for number, pack in samples
        for row in rows_of(mixture, number, pack)
    )
    assert found.fits[0].fill == pytest.approx(positions / len(samples) / 600, rel=1e-3)
    directory, at = ShardDirectory(made), 0
    whole = directory.split("train")
    for number, source in enumerate(mixture.sources):
        for pack in range(len(source.plan)):
            shown = packed_sample(directory, whole, at, seq_length=600, overlong="truncate", seed=1)
            own = [source.plan.split[row][0].tolist() for row in rows_of(mixture, number, pack)]
            assert [whole[segment.row][0].tolist() for segment in shown.segments] == own
            at += 1
    assert shown.packs == at


def test_weights_stand_in_the_table_of_sources(made: Path) -> None:
    found = statistics(made, seq_lengths=(600,))
    assert {Path(one.path).name: one.weight for one in found.splits[0].sources} == {
        "chatml_zh.jsonl": 3, "openai_tr.jsonl": 0.5, "alpaca_en.json": 1,
    }  # fmt: skip
    shown = [line.split() for line in stats.lines(found, global_batch=1, colour=False)]
    assert {line[0]: line[-1] for line in shown if line and line[0] in map(str, INPUTS)} == {
        str(path): f"{WEIGHTS[path.name] or 1:g}" for path in INPUTS
    }
    rows = re.findall(r"<tr><th scope=.row.><bdi>.*?</tr>", report(made), re.DOTALL)
    weights = {path.name: f"{WEIGHTS[path.name] or 1:g}" for path in INPUTS}
    for name, weight in weights.items():
        assert [f'<td class="n">{weight}</td></tr>' in row for row in rows if name in row] == [True]


@pytest.mark.parametrize("weight", ["1e-9", "1e12", "1e400"])
def test_weights_that_leave_no_epoch_or_an_endless_one_are_refused(made: Path, tmp_path: Path, weight: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--shards out: with these weights an epoch of the mixture has .* not a share$"
    ):
        stage(made, tmp_path, weight=weight, shards=("out",))


def rows_of(mixture: Mixture, number: int, pack: int) -> list[int]:
    packs = mixture.sources[number].plan.packs
    rows: list[int] = packs.items[packs.bounds[pack] : packs.bounds[pack + 1]].tolist()
    return rows


@pytest.mark.parametrize("evaluate", [None, "train"])
def test_evaluation_reads_every_sequence_once(made: Path, tmp_path: Path, evaluate: str | None) -> None:
    made_stage = stage(made, tmp_path, evaluate=evaluate)
    assert made_stage.valid is not None
    (source,) = made_stage.valid.sources
    assert source.plan.counts.stored == len(ShardDirectory(made).split(evaluate or "valid"))
