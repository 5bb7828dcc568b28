"""Weights of the sources within one directory: each is shown as often as it says, and evaluation knows none."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from preprocess_jobs import INPUTS, config

from sft_shards.formats.shards import ShardDirectory
from sft_shards.formats.shards.rows import Origins
from sft_shards.preprocess.job import run
from sft_shards.preprocess.source_options import SourceOptions
from sft_shards.trainer.data.cache import Cache
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
        plan = mixture.sources[number].plan
        origins = Origins(made, plan.split)
        rows = plan.packs.items[plan.packs.bounds[pack] : plan.packs.bounds[pack + 1]].tolist()
        own = [origins[row] for row in rows]
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


@pytest.mark.parametrize("evaluate", [None, "train"])
def test_evaluation_reads_every_sequence_once(made: Path, tmp_path: Path, evaluate: str | None) -> None:
    made_stage = stage(made, tmp_path, evaluate=evaluate)
    assert made_stage.valid is not None
    (source,) = made_stage.valid.sources
    assert source.plan.counts.stored == len(ShardDirectory(made).split(evaluate or "valid"))
