"""Growing inputs, comparing directories and putting them together, without tokenizing anything twice."""

import json
import shutil

import numpy as np
import pytest
from preprocess_jobs import INPUTS, SMALL, TOKENIZER, contents

import sft_shards.preprocess.tasks.task
from sft_shards.formats.shards import Manifest, ShardDirectory
from sft_shards.preprocess.directories.verify import verify

pytestmark = pytest.mark.process


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in INPUTS:
        shutil.copy(path, folder)
    return [folder / path.name for path in INPUTS]


@pytest.fixture
def made(monkeypatch):
    """The tasks that are tokenized, and not taken over."""
    numbers = []
    true_write = sft_shards.preprocess.tasks.task._write

    def write(plan, task, *arguments):
        numbers.append(task.number)
        return true_write(plan, task, *arguments)

    monkeypatch.setattr(sft_shards.preprocess.tasks.task, "_write", write)
    return numbers


def ok(result):
    status, out, err = result
    assert status == 0, err
    return out


def test_inputs_that_grew_are_tokenized_where_they_are_new(preprocess, tmp_path, sources, made):
    old, grown, fresh = tmp_path / "old", tmp_path / "grown", tmp_path / "fresh"
    ok(preprocess("run", *sources[:2], *SMALL, "--output", old, "--workers", 1))
    of_old = len(made)
    made.clear()
    with open(sources[1], "ab") as file:
        file.write(INPUTS[1].read_bytes()[:20_000])
    ok(preprocess("run", *sources, *SMALL, "--output", grown, "--workers", 1, "--extend", old))
    taken = len(list(made))
    made.clear()
    ok(preprocess("run", *sources, *SMALL, "--output", fresh, "--workers", 1))
    assert contents(grown) == contents(fresh)
    assert taken == len(made) - of_old + 1  # the last part of the file that grew is another one now
    assert taken < len(made)
    made.clear()
    ok(preprocess("run", *sources, *SMALL, "--output", tmp_path / "again", "--workers", 1, "--extend", fresh))
    assert made == []
    assert contents(tmp_path / "again") == contents(fresh)
    assert (fresh / "train/tokens/00000.bin").samefile(tmp_path / "again/train/tokens/00000.bin")


def test_a_source_that_changed_in_its_middle_is_tokenized_there(preprocess, tmp_path, sources, made):
    old = tmp_path / "old"
    ok(preprocess("run", *sources, *SMALL, "--output", old, "--workers", 1))
    made.clear()
    data = bytearray(sources[1].read_bytes())
    place = data.index(b"content", len(data) // 2) + 12
    data[place : place + 1] = b"#"
    sources[1].write_bytes(data)
    ok(preprocess("run", *sources, *SMALL, "--output", tmp_path / "new", "--workers", 1, "--extend", old))
    assert 1 <= len(made) <= 2
    ok(preprocess("run", *sources, *SMALL, "--output", tmp_path / "fresh", "--workers", 1))
    assert contents(tmp_path / "new") == contents(tmp_path / "fresh")


def test_what_was_made_in_another_way_is_not_taken_over(preprocess, tmp_path, sources):
    ok(preprocess("run", *sources, *SMALL, "--output", tmp_path / "old", "--workers", 1))
    status, _, err = preprocess(
        "run", *sources, *SMALL, "--train-on", "last", "--output", tmp_path / "new", "--extend", tmp_path / "old"
    )
    assert status == 2
    assert 'made in another way (config.train_on: "all" → "last")' in err
    assert not (tmp_path / "new").exists()


@pytest.fixture
def two(preprocess, tmp_path):
    for name, path in (("b", INPUTS[0]), ("a", INPUTS[1])):
        ok(preprocess("run", path, *SMALL, "--output", tmp_path / name, "--workers", 1))
    return tmp_path / "a", tmp_path / "b"


def pairs(directory, split):
    opened = ShardDirectory(directory).split(split)
    return [tuple(part.tolist() for part in opened[row]) for row in range(len(opened))]


def test_merged_directories_have_all_sequences_in_the_order_of_their_paths(preprocess, tmp_path, two):
    one, other = two
    out = ok(preprocess("merge", other, one, "--output", tmp_path / "merged"))
    assert "train" in out
    merged = tmp_path / "merged"
    assert verify(merged) == []
    for split in ("train", "valid"):
        assert pairs(merged, split) == pairs(one, split) + pairs(other, split)
    manifest = Manifest.read(merged)
    assert manifest.counts.read == Manifest.read(one).counts.read + Manifest.read(other).counts.read
    for source in manifest.sources:
        for part in source.parts:
            for split, name in part.shards.items():
                [shard] = [shard for shard in manifest.splits[split].shards if shard.name == name]
                assert shard.sequences <= part.records
    ok(preprocess("merge", one, other, "--output", tmp_path / "again"))
    assert contents(merged) == contents(tmp_path / "again")
    assert not (merged / ".work").exists()


def test_megatrons_own_merge_gives_the_same_sequences(preprocess, tmp_path, two):
    """Its rule, from tools/merge_datasets.py: prefixes of one folder in lexicographic order, one after the other."""
    ok(preprocess("merge", *two, "--output", tmp_path / "merged"))
    folder = tmp_path / "flat"
    folder.mkdir()
    for directory in two:
        for path in (directory / "train" / "tokens").iterdir():
            shutil.copy(path, folder / f"{directory.name}-{path.name}")
    prefixes = sorted({path.with_suffix("") for path in folder.iterdir()})
    stock = b"".join(prefix.with_suffix(".bin").read_bytes() for prefix in prefixes)
    ours = sorted((tmp_path / "merged" / "train" / "tokens").glob("*.bin"))
    assert b"".join(path.read_bytes() for path in ours) == stock


def test_other_tokenizers_and_templates_are_not_merged(preprocess, tmp_path, two, make_tokenizer):
    ok(preprocess("run", INPUTS[2], "--tokenizer", make_tokenizer("bytes"), "--output", tmp_path / "c"))
    status, _, err = preprocess("merge", two[0], tmp_path / "c", "--output", tmp_path / "merged")
    assert status == 2
    assert "has another tokenizer than" in err
    arguments = (INPUTS[2], "--tokenizer", TOKENIZER, "--template", "alpaca", "--output", tmp_path / "d")
    ok(preprocess("run", *arguments))
    status, _, err = preprocess("merge", two[0], tmp_path / "d", "--output", tmp_path / "merged")
    assert (status, "another template" in err) == (2, True)
    status, _, err = preprocess("merge", two[0], two[0], "--output", tmp_path / "merged")
    assert (status, "at least two" in err) == (2, True)
    assert not (tmp_path / "merged").exists()


def test_list_and_diff(preprocess, tmp_path, two):
    one, other = two
    listed = json.loads(ok(preprocess("list", *two, "--json")))
    assert [entry["directory"] for entry in listed] == [str(one), str(other)]
    assert listed[0]["splits"]["train"]["tokens"] == int(
        np.sum(ShardDirectory(one).split("train").lengths(), dtype=np.int64)
    )
    assert len(ok(preprocess("list", *two)).splitlines()) == 5
    assert "hold the same bytes" in ok(preprocess("diff", one, one))
    status, out, _ = preprocess("diff", one, other, "--json")
    assert status == 1
    found = "\n".join(json.loads(out))
    assert f"source {INPUTS[1]}: only in {one}" in found
    assert f"source {INPUTS[0]}: only in {other}" in found
    assert "split train.sequences" in found
