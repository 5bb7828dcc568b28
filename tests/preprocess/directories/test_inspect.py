"""`inspect`: rows by every way to ask for them, and packs as the trainer builds them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from preprocess_jobs import INPUTS, config

from sft_shards.formats.shards import ShardDirectory
from sft_shards.preprocess.job import run
from sft_shards.trainer.data.cache import Cache
from sft_shards.trainer.data.pack_plan import make_plan

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output: Path = tmp_path_factory.mktemp("made") / "out"
    run(config(INPUTS, shard_tokens=20_000), output, workers=1)
    return output


@pytest.fixture
def shown(preprocess, made):
    """The rows that a call shows."""

    def call(*options):
        status, out, err = preprocess("inspect", made, "--json", *options)
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return call


def lengths(made):
    return ShardDirectory(made).split("train").lengths().tolist()


def test_rows_in_order(shown):
    assert [one["row"] for one in shown("--row", 5, "-n", 3)] == [5, 6, 7]


def test_the_longest_and_the_shortest(shown, made):
    every = sorted(lengths(made))
    assert [len(one["tokens"]) for one in shown("--longest", "-n", 4)] == every[::-1][:4]
    assert [len(one["tokens"]) for one in shown("--shortest", "-n", 4)] == every[:4]


def test_chance_depends_on_the_seed_alone(shown, made):
    first, again, other = ([one["row"] for one in shown("--random", "-n", 5, "--seed", seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 5
    assert sorted(one["row"] for one in shown("--random", "-n", 10**6)) == list(range(len(lengths(made))))


def test_a_source_and_a_record(shown):
    found = shown("--source", "openai_tr", "-n", 10**6)
    assert found
    assert {one["source"] for one in found} == {str(INPUTS[1])}
    (one,) = shown("--source", "openai_tr", "--record", found[7]["record"], "-n", 3)
    assert one == found[7]


def test_what_stands_in_the_text(shown):
    every = shown("-n", 10**6)
    texts = {one["row"]: "".join(part["text"] for part in one["text"]) for one in every}
    wanted = [row for row, text in texts.items() if re.search(r"[Ww]ater\b", text)]
    assert len(wanted) > 2
    assert [one["row"] for one in shown("--grep", r"[Ww]ater\b", "-n", 10**6)] == wanted
    assert [one["row"] for one in shown("--grep", r"[Ww]ater\b")] == wanted[:1]


def test_tokens_with_their_ids(preprocess, made):
    _, out, _ = preprocess("inspect", made, "--row", 3, "--tokens")
    ids, mask = ShardDirectory(made).split("train")[3]
    lines = [re.fullmatch(r" *(\d+)  +(\d+)  ([+ ])  \|(.*)\|", line) for line in out.splitlines()[1:]]
    assert [int(line[2]) for line in lines if line] == ids.tolist()
    assert [line[3] == "+" for line in lines if line] == [bool(one) for one in mask]


@pytest.mark.parametrize("overlong", ["truncate", "drop"])
@pytest.mark.parametrize("number", [0, 5])
def test_a_pack_is_the_trainers(shown, made, tmp_path, overlong, number):
    split = ShardDirectory(made).split("train")
    plan = make_plan(
        split,
        seq_length=256,
        overlong=overlong,
        batching="packed",
        every_token=False,
        seed=7,
        cache=Cache(tmp_path / "cache"),
    )
    (pack,) = shown("--pack", number, "--seq-length", 256, "--overlong", overlong, "--seed", 7)
    rows = plan.packs.items[plan.packs.bounds[number] : plan.packs.bounds[number + 1]].tolist()
    assert (pack["packs"], [one["row"] for one in pack["segments"]]) == (len(plan), rows)
    begin = 0
    for segment, row in zip(pack["segments"], rows, strict=True):
        ids, mask = split[row]
        assert (segment["tokens"], segment["loss_mask"]) == (ids[:257].tolist(), mask[:257].tolist())
        assert (segment["begin"], segment["cut"]) == (begin, max(len(ids) - 257, 0))
        begin += len(ids[:257]) - 1
    assert pack["positions"] == begin <= 256
    assert pack["trained_tokens"] == sum(int(np.sum(split[row][1][1:257])) for row in rows)


def test_lines_of_several_rows_and_of_a_pack_stand_behind_a_bar(preprocess, made, shown):
    # The order of packs depends on the plan, in which the paths of the inputs stand: any of several conversations will do.
    packs = (shown("--pack", number, "--seq-length", 600)[0] for number in range(163))
    number = next(pack["pack"] for pack in packs if len(pack["segments"]) > 1)
    for options in (["-n", 3], ["--pack", number, "--seq-length", 600]):
        _, out, _ = preprocess("inspect", made, *options)
        heads = [line for line in out.splitlines() if not line.startswith("│ ")]
        assert all(re.match(r"train (row|pack) \d+ of |segment \d+: positions \d+ to ", line) for line in heads)
        assert len(heads) >= 3


@pytest.mark.parametrize(
    "options",
    [
        ["--source", "nonesuch"],
        ["--record", "999999"],
        ["--grep", "no such text anywhere"],
        ["--grep", "("],
        ["--pack", "0"],
        ["--seq-length", "100"],
        ["--pack", "999999", "--seq-length", "100"],
        ["--row", "999999"],
        ["--split", "test"],
    ],
)
def test_wrong_calls_and_what_is_not_there(preprocess, made, options):
    status, out, err = preprocess("inspect", made, *options)
    assert (status, out) == (2, "")
    assert err.startswith("sft-preprocess: ")
