"""Merges that are repeated, disturbed by another, or given damaged or overlapping directories: nothing is lost."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from disk_calls import preprocess as preprocess_commands
from disk_calls import watched
from preprocess_jobs import INPUTS, TOKENIZER, config, contents
from writable import writable

from sft_shards.preprocess.directories.merge import merge
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two small shard directories, `a` and `b`, and what they give merged."""
    folder = tmp_path_factory.mktemp("made")
    for name, path in (("a", INPUTS[1]), ("b", INPUTS[0])):
        source = folder / path.name
        source.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:30]))
        run(config([source], shard_tokens=1 << 20), folder / name, workers=1)
    merge([folder / "a", folder / "b"], folder / "merged")
    return folder, contents(folder / "merged")


@pytest.fixture
def two(made, tmp_path):
    """Copies of the two directories, for a test that may do them harm."""
    for name in ("a", "b"):
        writable(Path(shutil.copytree(made[0] / name, tmp_path / name)))
    return tmp_path / "a", tmp_path / "b"


def refused(result, status, *words):
    assert result[0] == status, result
    [line] = result[2].splitlines()
    assert all(str(word) in line for word in words), line


def stopped(directories, output, change):
    """Begin a merge that is killed just before its first change that ends so."""
    words = ["merge", *directories, "--output", output]
    done = watched(preprocess_commands, [words], below=output.parent)
    assert done.status == 0, done.error
    shutil.rmtree(output)
    number = next(at for at, call in enumerate(done.calls, 1) if call.endswith(change))
    assert watched(preprocess_commands, [words], below=output.parent, kill_before=number).status == -signal.SIGKILL


def test_the_same_call_on_a_finished_output_does_nothing_and_another_is_refused(preprocess, made, tmp_path):
    folder, expected = made
    shutil.copytree(folder / "merged", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert preprocess("merge", folder / "b", folder / "a", "--output", tmp_path / "out")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    shutil.copytree(folder / "a", tmp_path / "c")
    result = preprocess("merge", folder / "a", tmp_path / "c", "--output", tmp_path / "out")
    refused(result, 2, "already holds a complete shard directory")
    assert contents(tmp_path / "out") == expected


def test_another_merge_does_not_touch_an_unfinished_one(preprocess, made, two, tmp_path):
    """Its shards are names of somebody's files."""
    folder, _ = made
    sources = [contents(path) for path in two]
    output = tmp_path / "out"
    stopped(two, output, "train/rows/00001.parquet")
    (output / ".work" / "lock").unlink()
    begun = contents(output)
    assert any(path.startswith("train/") for path in begun)
    result = preprocess("merge", two[0], folder / "b", "--output", output)
    refused(result, 2, "unfinished merge of", two[0], two[1])
    (output / ".work" / "lock").unlink()  # it names who held it last
    assert contents(output) == begun
    assert [contents(path) for path in two] == sources


def test_a_file_in_the_way_is_replaced_and_not_written_to(made, two, tmp_path):
    output = tmp_path / "out"
    stopped(two, output, "train/loss_mask/00000.bin")
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    shard = output / "train" / "tokens" / "00001.bin"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.unlink(missing_ok=True)
    os.link(mine, shard)
    merge(list(two), output)
    assert contents(output) == made[1]
    assert mine.read_bytes() == b"mine"


def test_an_unfinished_job_is_left_alone(preprocess, made, tmp_path):
    folder, _ = made
    output = tmp_path / "out"
    (output / ".work" / "tokenizer").mkdir(parents=True)
    refused(preprocess("merge", folder / "a", folder / "b", "--output", output), 2, "holds an unfinished job")
    assert [path.name for path in (output / ".work").iterdir() if path.name != "lock"] == ["tokenizer"]


@pytest.mark.parametrize("place", ["a", "a/inside", "link", "."])
def test_an_output_that_overlaps_with_a_source_is_refused(preprocess, two, tmp_path, place):
    (tmp_path / "link").symlink_to(two[0])
    sources = [contents(path) for path in two]
    for more in ((), ("--overwrite",)):
        result = preprocess("merge", *two, "--output", tmp_path / place, *more)
        refused(result, 2, "overlaps with", two[0])
    assert [contents(path) for path in two] == sources


@pytest.mark.parametrize(
    "name",
    ["train/tokens/00000.bin", "train/loss_mask/00000.idx", "train/rows/00000.parquet", "rejects.jsonl", "tokenizer"],
)
def test_a_damaged_file_is_not_passed_on(preprocess, two, tmp_path, name):
    damaged = two[0] / name
    if damaged.is_dir():
        damaged = next(path for path in sorted(damaged.iterdir()) if path.name == "tokenizer.json")
    data = bytearray(damaged.read_bytes()) or bytearray(b"\n")
    data[-1] ^= 1
    damaged.write_bytes(data)
    refused(preprocess("merge", *two, "--output", tmp_path / "out"), 1, damaged, "damaged")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_extend_takes_no_damaged_shard_over(preprocess, made, two, tmp_path):
    source = made[0] / INPUTS[1].name
    options = ["--tokenizer", TOKENIZER, "--shard-tokens", 1 << 20, "--workers", 1]
    assert preprocess("run", source, *options, "--output", tmp_path / "old")[0] == 0
    for name in ("train/tokens/00000.bin", "train/rows/00000.parquet"):
        damaged = writable(tmp_path / "old" / name)
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        output = tmp_path / f"new-{damaged.suffix}"
        status, _, err = preprocess("run", source, *options, "--output", output, "--extend", tmp_path / "old")
        assert status == 1
        assert f"{damaged}: damaged" in err
        assert "Traceback" not in err
        assert not (output / "manifest.json").exists()
        damaged.write_bytes(whole)
