"""The report of a directory: its numbers, its warnings, and that hostile contents stay harmless and small."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_pages import check_harmless
from hypothesis import given
from hypothesis import strategies as st
from preprocess_jobs import DATA, TOKENIZER, call, contents, error_line
from toy_runs import random_pairs, write_shards

import sft_shards
from sft_shards.formats.pages.page import LIMIT
from sft_shards.formats.shards import Counts, Manifest, Notes, ShardDirectory, SourceInfo, SplitInfo
from sft_shards.preprocess.directories.findings import findings, last_trained, unstopped
from sft_shards.preprocess.directories.report import report
from sft_shards.preprocess.directories.statistics import Distribution, SourceStatistics, SplitStatistics
from sft_shards.preprocess.tasks.losses import Loss

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "left\u202eright\u2066 \x1b]52;c;QQ==\x07\x00",
    "</pre></details></main><h1>forged</h1>",
    "]]><!-- <style>* { display: none }</style>",
    "<" * 30_000,
    "\u202e" * 30_000,
    "日本語🙂" * 20_000,
]


@pytest.mark.process
def test_numbers_and_rejects_are_those_of_the_directory(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"instruction": "a", "output": "b"}\n' + '{"instruction": "", "output": ""}\n{"x\n' * 3, "utf-8")
    job = [
        "run",
        bad,
        DATA / "openai_tr.jsonl",
        "--tokenizer",
        TOKENIZER,
        "--valid-fraction",
        "0.1",
        "--max-rejects",
        "50",
    ]
    call(*job, "--output", tmp_path / "out", "--workers", "1")
    before = contents(tmp_path / "out")
    done = call("report", tmp_path / "out", "--output", tmp_path / "page.html", "--seq-length", "512")
    assert "page.html" in done.stdout
    assert contents(tmp_path / "out") == before
    page = check_harmless((tmp_path / "page.html").read_text("utf-8"))
    manifest = Manifest.read(tmp_path / "out")
    train = manifest.splits["train"]
    assert f"Records read {manifest.counts.read} from 2 files" in page.text
    assert f"Training {train.sequences} conversations, {train.tokens:,} tokens" in page.text
    assert f"{train.trained_tokens:,} of train" in page.text
    assert "bad.jsonl lost most of its records: 6 of 7" in page.text
    assert re.search(r"3 broken_json .*bad\.jsonl, record 2: ", page.text)
    shown = [index for index, (tag, attributes) in enumerate(page.elements) if attributes.get("class") == "card"]
    assert len(shown) == 20
    opened = sft_shards.open(tmp_path / "out")["train"]
    first = int(re.search(r"Row ([\d,]+) drawn at random", page.text)[1].replace(",", ""))
    trained = [span.text for span in opened.spans(first) if span.trained]
    assert [text.replace("↵", "") for text in page.marked[1 : 1 + len(trained)]] == trained


@pytest.mark.process
def test_hostile_contents_stay_harmless_and_small(tmp_path: Path) -> None:
    rng = random.Random(5)
    folder = tmp_path / "<svg onload=alert(1)>\u202e"
    folder.mkdir()
    for number in range(62):
        rows = [{"instruction": rng.choice(HOSTILE), "output": rng.choice(HOSTILE)} for _ in range(1 + (number < 8))]
        rows.append({"instruction": "a", "output": None, rng.choice(HOSTILE[:5]): 1})
        lines = [json.dumps(row) for row in rows]
        (folder / f"{number}<b>.jsonl").write_text("\n".join([*lines, "<script>{"]) + "\n", "utf-8")
    sft_shards.run(folder, output=tmp_path / "out", tokenizer=TOKENIZER, format="alpaca", workers=1)
    text = report(tmp_path / "out")
    assert len(text.encode()) <= LIMIT
    page = check_harmless(text)
    assert len(page.named("h1")) == 1
    assert len(page.named("main")) == 1
    assert "more files with fewer tokens are not listed" in page.text


@pytest.mark.process
def test_wrong_calls(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sft_shards.run(DATA / "openai_tr.jsonl", output=out, tokenizer=TOKENIZER, workers=1)
    assert "lies in the shard directory" in error_line(call("report", out, "--output", out / "r.html", status=2).stderr)
    assert "no folder" in error_line(call("report", out, "--output", tmp_path / "x" / "r.html", status=2).stderr)
    assert "no such" in error_line(call("report", tmp_path / "y", "--output", tmp_path / "r.html", status=1).stderr)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.unit
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(1, 3))
def test_the_last_trained_token(tmp_path_factory: pytest.TempPathFactory, masks: list[list[int]], shards: int) -> None:
    pairs = [([10 + (7 * row + at) % 100 for at in range(len(mask))], mask) for row, mask in enumerate(masks)]
    directory = write_shards(tmp_path_factory.mktemp("shards") / "d", {"train": pairs}, shards=shards)
    expected = [next((i for i, m in zip(ids[::-1], mask[::-1], strict=True) if m), -1) for ids, mask in pairs]
    found = last_trained(ShardDirectory(directory).split("train"))
    assert found.tolist() == expected
    assert unstopped(found, [11, 12]).tolist() == [one >= 0 and one not in (11, 12) for one in expected]


EMPTY = Distribution.of(np.zeros(0, dtype=np.int64), (0, 1))


def titles(
    manifest: Manifest,
    *,
    shares: tuple[float, ...] = (0.5, 0.5),
    weights: tuple[float, ...] = (1, 1, 1),
    losses: tuple[Loss, ...] = (),
    **changes,
) -> list[str]:
    """What stands out in a hundred conversations of 100 tokens, half of them trained, that end with the id 1."""
    sources = tuple(
        SourceStatistics(path=f"s{number}", sequences=1, tokens=round(100 * share), trained_tokens=1, share=share, trained_share=0.5,
                         weight=weight)
        for number, (share, weight) in enumerate(zip(shares, weights, strict=False))
    )  # fmt: skip
    split = SplitStatistics(
        name="train", sequences=100, tokens=100, trained_tokens=50, sources=sources, lengths=EMPTY, trained_shares=EMPTY, fits=()
    )  # fmt: skip
    values = {
        "lengths": np.full(100, 100, dtype=np.int32),
        "trained": np.full(100, 50, dtype=np.uint32),
        "last": np.ones(100, dtype=np.int64),
        "stops": [1],
    }
    return [one.title for one in findings(manifest, split, losses, **(values | changes))]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    pairs = random_pairs(3, seed=1)
    made = Manifest.read(write_shards(tmp_path / "shards", {"train": pairs, "valid": pairs}))
    sources = [
        SourceInfo(path=f"s{number}", kind="jsonl", compression="", format="alpaca", bytes=1, sha256="", records=100)
        for number in range(2)
    ]
    return replace(made, sources=tuple(sources))


@pytest.mark.unit
def test_nothing_stands_out_where_nothing_is_wrong(manifest: Manifest) -> None:
    assert titles(manifest) == []


@pytest.mark.unit
def test_what_stands_out(manifest: Manifest) -> None:
    lost = [Loss(source="s0", reason="empty", records=count, first=0, detail="") for count in (9, 10, 60)]
    assert titles(manifest, losses=(lost[0],)) == []
    assert titles(manifest, losses=(lost[1],)) == ["s0 lost 10% of its records: 10 of 100"]
    assert titles(manifest, losses=(lost[2],)) == ["s0 lost most of its records: 60 of 100"]
    assert titles(manifest, shares=(0.1, 0.9)) == ["s1 has 90% of the tokens that are shown in training"]
    assert titles(manifest, shares=(0.1, 0.9), weights=(1, 0.3)) == [], "it is shown less often"
    assert titles(manifest, shares=(0.5, 0.5), weights=(1, 4)) == [
        "s1 has 80% of the tokens that are shown in training"
    ]
    assert titles(manifest, shares=(1.0,)) == []
    last = np.ones(100, dtype=np.int64)
    last[3], last[4] = 7, -1
    assert titles(manifest, last=last) == ["1 conversations end their last trained part without a stop token"]
    assert titles(replace(manifest, config={"train_on": "everything"}), last=last) == []
    trained = np.array([3, 4, *[50] * 98], dtype=np.uint32)
    assert titles(manifest, trained=trained) == ["2 conversations (2.0%) train at most 4 tokens"]
    assert titles(replace(manifest, config={"max_length": 105})) == [
        "100 conversations (100.0%) are near --max-length 105"
    ]
    assert titles(replace(manifest, config={"max_length": 200})) == []
    noted = replace(manifest, notes=Notes(counts={"reasoning_dropped": 4, "straddling_tokens": 9}))
    assert titles(noted) == ["4 conversations of which the template leaves reasoning out"]
    bug = replace(manifest, counts=Counts(read=9, written=8, rejected={"internal_error": 1}))
    assert titles(bug) == ["1 records: internal_error"]
    only: dict[str, SplitInfo] = {"train": manifest.splits["train"]}
    assert titles(replace(manifest, splits=only)) == ["There is no validation split"]
