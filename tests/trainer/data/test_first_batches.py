"""The page of the first batches: conversations out of samples again, and a page that is harmless and small."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from html_pages import check_harmless
from hypothesis import given
from hypothesis import strategies as st
from preprocess_jobs import DATA, TOKENIZER
from toy_runs import PAD, random_pairs, turn, write_shards

import sft_shards
from sft_shards.formats.pages.page import LIMIT
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.first_batches import conversations, page
from sft_shards.trainer.data.mixture import Mixture, Source
from sft_shards.trainer.data.pack_plan import make_plan
from sft_shards.trainer.data.samples import TrainSamples
from sft_shards.trainer.data.shards import Reader


def training(directory: ShardDirectory, folder: Path, *, seq_length: int, count: int) -> TrainSamples:
    plan = make_plan(
        directory.split("train"), seq_length=seq_length, overlong="truncate", batching="packed", every_token=False, seed=1,
        cache=Cache(folder),
    )  # fmt: skip
    reader = Reader(plan, seq_length=seq_length, pad_id=directory.manifest.tokenizer.pad_id, every_token=False)
    return TrainSamples(Mixture([Source(name="mine", weight=Fraction(1), plan=plan)], seed=1), [reader], count=count)


@pytest.mark.unit
@given(st.integers(0, 50), st.integers(24, 90))
def test_conversations_come_out_of_samples_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, seed: int, seq_length: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    pairs = [*random_pairs(8, seed=seed, answer=(1, 9)), turn([11] * 30, [21] * 70)]
    directory = ShardDirectory(write_shards(folder / "d", {"train": pairs}))
    samples = training(directory, folder / "cache", seq_length=seq_length, count=1)
    packs = len(samples.mixture.sources[0].plan)
    found = []
    for number in range(packs):
        for ids, mask in conversations(samples.readers[0][number], PAD):
            found.append((ids.tolist(), mask.tolist()))
    cut = [(ids[: seq_length + 1], mask[: seq_length + 1]) for ids, mask in pairs]
    assert sorted(found) == sorted(one for one in cut if any(one[1][1:]))


@pytest.mark.process
def test_the_page_shows_what_carries_loss(tmp_path: Path) -> None:
    sft_shards.run(DATA / "openai_tr.jsonl", output=tmp_path / "out", tokenizer=TOKENIZER, workers=1)
    directory = ShardDirectory(tmp_path / "out")
    samples = training(directory, tmp_path / "cache", seq_length=256, count=8)
    text = page(samples, batches=2, global_batch=4, seq_length=256, names=["<mine>"], directory=directory)
    assert len(text.encode()) < LIMIT
    shown = check_harmless(text)
    cards = [one for one in shown.named("details") if one.get("class") == "card"]
    assert len(cards) == 8
    trained = sum(int(samples[item]["loss_mask"].sum()) for item in range(4))
    assert f"{trained:,} labels carry loss" in shown.text
    decoder = sft_shards.open(tmp_path / "out").decoder
    first = next(conversations(samples[0], directory.manifest.tokenizer.pad_id))
    runs = np.flatnonzero(np.diff(first[1], prepend=0) == 1)
    begin = int(runs[0])
    end = begin + int(np.argmin(np.append(first[1][begin:], 0)))
    assert shown.marked[1] == decoder.decode(first[0][begin:end])


@pytest.mark.process
def test_many_batches_stay_small(tmp_path: Path) -> None:
    sft_shards.run(DATA / "chatml_zh.jsonl", output=tmp_path / "out", tokenizer=TOKENIZER, workers=1)
    directory = ShardDirectory(tmp_path / "out")
    samples = training(directory, tmp_path / "cache", seq_length=8192, count=24 * 3)
    text = page(samples, batches=24, global_batch=3, seq_length=8192, names=["mine"], directory=directory)
    assert len(text.encode()) < LIMIT
    assert "2 more samples are not shown" in check_harmless(text).text
