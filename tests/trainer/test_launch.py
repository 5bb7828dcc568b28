"""How workers are started: with torchrun, as many as there are GPUs, and what is said when there are too few."""

from __future__ import annotations

import os

import pytest
import torch

from formats.errors import DataError, UsageError
from trainer import launch
from trainer.job import Job

JOB = Job(shards=("a b", "ç"), config={"lr": 0.1, "x": [1]}, config_path="run.yaml", flags=("--num-layers", "2"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(launch, "_run", lambda job, nproc: found.append(nproc))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return found


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, hip: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.version, "hip", hip)


def test_the_job_travels_whole() -> None:
    words = launch.torchrun_arguments(JOB, 2)
    assert words[:-1] == ["--standalone", "--nproc-per-node", "2", "-m", "trainer.worker"]
    assert Job.loads(words[-1]) == JOB


def test_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch, started: list[int]) -> None:
    gpus(monkeypatch, 8, hip="6.4")
    os.environ.pop("HSA_NO_SCRATCH_RECLAIM", None)
    launch.launch(JOB, None)
    launch.launch(JOB, 4)
    assert started == [8, 4]
    assert os.environ["HSA_NO_SCRATCH_RECLAIM"] == "1"


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch, started: list[int]) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(UsageError, match="--nproc 4, but 2"):
        launch.launch(JOB, 4)
    gpus(monkeypatch, 0)
    with pytest.raises(DataError, match="--device cpu"):
        launch.launch(JOB, None)
    assert started == []


def test_on_the_cpu_no_gpu_is_asked_for(monkeypatch: pytest.MonkeyPatch, started: list[int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    os.environ.update(OMP_NUM_THREADS="7", GPU_MAX_HW_QUEUES="")
    launch.launch(Job(shards=("a",), device="cpu"), None)
    assert started == [1]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"
