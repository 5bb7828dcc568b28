"""Merges that are killed, repeated, given damaged or overlapping directories, or run out of disk: nothing is lost."""

import errno
import multiprocessing
import os
import shutil
import signal

import pytest
from doomed import kill_at
from preprocess_jobs import INPUTS, TOKENIZER, config, contents

from sft_shards.preprocess.directories.merge import merge
from sft_shards.preprocess.directories.verify import verify
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.process

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["sft_shards.preprocess.directories.merge"])


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
        shutil.copytree(made[0] / name, tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def refused(result, status, *words):
    assert result[0] == status, result
    [line] = result[2].splitlines()
    assert all(str(word) in line for word in words), line


def doomed_merge(directories, output, step, before):
    """In a process of its own: a merge that kills itself at its n-th change of a folder; exit status 3 if it ends."""
    calls = kill_at(step, ("link", "rename", "replace", "mkdir", "rmdir", "unlink"), before=before)
    merge(directories, output)
    os._exit(3 if calls() < step else 4)


def test_a_merge_killed_at_any_change_goes_on_with_the_same_call(made, tmp_path):
    folder, expected = made
    directories = [folder / "a", folder / "b"]
    sources = [contents(path) for path in directories]
    output = tmp_path / "out"
    step = 0
    while True:
        step += 1
        process = server.Process(target=doomed_merge, args=(directories, output, step, step % 2 == 0))
        process.start()
        process.join()
        if process.exitcode == 3:
            break
        assert process.exitcode == -signal.SIGKILL
        merge(directories, output)
        assert contents(output) == expected, step
        shutil.rmtree(output)
    assert step > 40
    assert [contents(path) for path in directories] == sources


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
    process = server.Process(target=doomed_merge, args=(list(two), output, 30, True))
    process.start()
    process.join()
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
    process = server.Process(target=doomed_merge, args=(list(two), output, 12, True))
    process.start()
    process.join()
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
        damaged = tmp_path / "old" / name
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        output = tmp_path / f"new-{damaged.suffix}"
        status, _, err = preprocess("run", source, *options, "--output", output, "--extend", tmp_path / "old")
        assert status == 1
        assert f"{damaged}: damaged" in err
        assert "Traceback" not in err
        assert not (output / "manifest.json").exists()
        damaged.write_bytes(whole)


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(preprocess, monkeypatch, made, two, tmp_path):
    """Copied, as on a file system without links; at every fsync of a file."""
    output = tmp_path / "out"
    true_fsync = os.fsync

    def no_link(*_, **__):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    failed = 0
    while True:
        left = failed

        def fsync(handle):
            nonlocal left
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left -= 1
            true_fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", no_link)
            patch.setattr(os, "fsync", fsync)
            result = preprocess("merge", *two, "--output", output)
        if result[0] == 0:
            break
        refused(result, 1, output, "No space left")
        failed += 1
    assert failed > 10
    assert contents(output) == made[1]
    assert verify(output) == []
