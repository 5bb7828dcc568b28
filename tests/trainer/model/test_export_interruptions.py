"""`sft-train export`, killed before any of its changes of the disk, and on a disk that is full: the folder is not there,
or it is complete, and the same call goes on. As `tests/preprocess/test_interruptions.py` does for shard directories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hf_folders
import pytest
import torch
import torch_checkpoints
from disk_calls import NEEDS_ROOM, Watched, watched
from preprocess_jobs import contents
from safetensors.torch import load_file

from sft_shards.trainer import cli
from sft_shards.trainer.model import safetensors_writer

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

SAMPLE = 12
"""Changes that are tried in a run of all tests."""


@pytest.fixture(scope="module")
def checkpoint(memory: Path) -> Path:
    model = hf_folders.write(memory / "model")
    tensors = torch_checkpoints.megatron(load_file(model / "model.safetensors"), padded=128)
    torch_checkpoints.write(memory / "out", tensors)
    torch_checkpoints.with_record(memory / "out", model)
    return memory / "out"


@pytest.fixture
def folder(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an export of several files goes."""
    monkeypatch.setattr(safetensors_writer, "FILE_BYTES", 1500)
    torch.set_num_threads(1)  # a fork of a process with threads of OpenMP hangs
    return memory / "folder"


def attempt(checkpoint: Path, folder: Path, **trouble: int) -> Watched:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return again(checkpoint, folder, **trouble)


def again(checkpoint: Path, folder: Path, **trouble: Any) -> Watched:
    words = ["export", str(checkpoint), "--output", str(folder / "hf")]
    return watched(cli.status, [words], below=folder, fork=True, **trouble)


def chosen(numbers: list[int], every: bool) -> Iterable[int]:
    return numbers if every else sorted({numbers[at * (len(numbers) - 1) // (SAMPLE - 1)] for at in range(SAMPLE)})


def check(checkpoint: Path, folder: Path, expected: dict[str, str], where: str) -> None:
    """After trouble: a folder that is there is complete, and where there is none the same call makes it."""
    if (folder / "hf").exists():
        assert contents(folder) == expected, where
        return
    last = again(checkpoint, folder)
    assert (last.status, contents(folder) == expected) == (0, True), (where, last.error)
    assert os.listdir(folder) == ["hf"], where


def test_killed_before_a_change_the_same_call_goes_on(
    checkpoint: Path, folder: Path, pytestconfig: pytest.Config
) -> None:
    done = attempt(checkpoint, folder)
    assert (done.status, done.early) == (0, []), done.error
    expected = contents(folder)
    assert len(expected) > 5
    for number in chosen(list(range(1, len(done.calls) + 1)), pytestconfig.getoption("every_change")):
        killed = attempt(checkpoint, folder, kill_before=number)
        where = f"change {number}: {killed.calls[-1]}"
        assert killed.status == -9, where
        check(checkpoint, folder, expected, where)


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(
    checkpoint: Path, folder: Path, pytestconfig: pytest.Config
) -> None:
    done = attempt(checkpoint, folder)
    expected = contents(folder)
    needing = [number for number, call in enumerate(done.calls, 1) if call.split()[0] in NEEDS_ROOM]
    for number in chosen(needing, pytestconfig.getoption("every_change")):
        full = attempt(checkpoint, folder, full_from=number)
        where = f"full from change {number}: {done.calls[number - 1]}"
        assert full.status == 1, (where, full.error)
        [line] = full.error.splitlines()
        assert "full" in line or "No space left" in line, where
        check(checkpoint, folder, expected, where)
