"""Published shards are read-only, for whoever would write through another name of them; folders are not, so that a
directory can be deleted. Every command works with that, without the privileges that let root write anyway."""

import os
import shutil
import stat
import subprocess

import pytest
from preprocess_jobs import GUARD, INPUTS, TOKENIZER, command, contents

from sft_shards.preprocess.directories.verify import verify

pytestmark = pytest.mark.process

OPTIONS = ["--tokenizer", TOKENIZER, "--shard-tokens", 6000]
WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def call(*words):
    done = subprocess.run(
        [*WITHOUT_PRIVILEGES, *command(*words)], capture_output=True, text=True, timeout=GUARD, check=False
    )
    assert done.returncode == 0, done.stderr


def check(directory):
    """Shards cannot be written, whatever the umask; folders can."""
    shards = [path for split in ("train", "valid") for path in (directory / split).rglob("*") if path.is_file()]
    assert shards
    assert {stat.S_IMODE(path.stat().st_mode) for path in shards} == {0o444}
    assert all(path.stat().st_mode & stat.S_IWUSR for path in [directory, *directory.rglob("*")] if path.is_dir())
    assert verify(directory) == []


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(INPUTS[1].read_bytes().splitlines(keepends=True)[:40]))
    return path


def test_every_command_makes_and_takes_read_only_shards(tmp_path, source):
    one, other, merged = (tmp_path / name for name in ("one", "other", "merged"))
    call("run", source, *OPTIONS, "--valid-fraction", 0.1, "--output", one)
    check(one)
    first = contents(one)
    call("run", source, *OPTIONS, "--valid-fraction", 0.1, "--output", one, "--overwrite")
    assert contents(one) == first
    source.write_bytes(source.read_bytes() * 2)
    call("run", source, *OPTIONS, "--valid-fraction", 0.1, "--output", other, "--extend", one)
    check(other)
    call("run", source, *OPTIONS, "--dedup", "--output", tmp_path / "dedup")
    check(tmp_path / "dedup")
    for _ in range(2):
        call("merge", one, other, "--output", merged, "--overwrite")
        check(merged)
    assert contents(one) == first
    linked = merged / "train" / "tokens" / "00000.bin"
    assert os.path.samefile(linked, one / "train" / "tokens" / "00000.bin")
    shutil.rmtree(merged)
    assert contents(one) == first


def test_the_steps_of_a_job_too(tmp_path, source):
    output = tmp_path / "out"
    call("plan", source, *OPTIONS, "--output", output)
    call("task", "--output", output)
    for _ in range(2):
        call("finalize", "--output", output)
        check(output)


def test_copies_are_read_only_where_nothing_can_be_linked(preprocess, monkeypatch, tmp_path, source):
    one, other = tmp_path / "one", tmp_path / "other"
    for output in (one, other):
        assert preprocess("run", source, *OPTIONS, "--output", output)[0] == 0

    def no_link(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    assert preprocess("merge", one, other, "--output", tmp_path / "merged")[0] == 0
    check(tmp_path / "merged")


def test_rights_are_those_of_the_umask_without_the_right_to_write(preprocess, tmp_path, source):
    before = os.umask(0o077)
    try:
        assert preprocess("run", source, *OPTIONS, "--output", tmp_path / "out")[0] == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out" / "train" / "tokens" / "00000.bin").stat().st_mode) == 0o400
