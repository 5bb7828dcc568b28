"""How workers are started: with torchrun, as many as there are GPUs, and what is said when there are too few."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer import worker
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch import launcher, nodes
from sft_shards.trainer.launch.launcher import Launch, plan
from sft_shards.trainer.launch.nodes import Nodes
from sft_shards.trainer.launch.preemption import StoppedError
from sft_shards.trainer.mcore.training_log import Meter

pytestmark = pytest.mark.unit

JOB = Job(shards=("a b", "ç"), config={"lr": 0.1, "x": [1]}, config_path="run.yaml", flags=("--num-layers", "2"))
ONE = Nodes()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    found: list[Launch] = []
    monkeypatch.setattr(launcher, "_check", lambda planned: None)  # these jobs have no shards
    monkeypatch.setattr(launcher, "_run", found.append)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return found


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, hip: str | None = None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.version, "hip", hip)


def test_the_job_travels_whole() -> None:
    words = Launch(job=JOB, nproc=2, nodes=ONE, variables=(), gpus=0, warning="").torchrun()
    assert words[:-1] == ["--standalone", "--nproc-per-node=2", "-m", "sft_shards.trainer.worker"]
    assert Job.loads(words[-1]) == JOB


def test_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch, started: list[Launch]) -> None:
    gpus(monkeypatch, 8, hip="6.4")
    os.environ.pop("HSA_NO_SCRATCH_RECLAIM", None)
    os.environ["NVTE_FUSED_ATTN"] = "1"
    launcher.launch(JOB, None, ONE)
    launcher.launch(JOB, 4, Nodes(count=2, rank=1, master_addr="node0", master_port=5))
    assert [(each.nproc, each.world, each.job.attention) for each in started] == [(8, 8, "fused"), (4, 8, "fused")]
    where = ["--nnodes=2", "--node-rank=1", "--master-addr=node0", "--master-port=5", "--nproc-per-node=4"]
    assert started[1].torchrun()[:5] == where
    assert os.environ["HSA_NO_SCRATCH_RECLAIM"] == "1"
    assert "NVTE_FUSED_ATTN" not in os.environ


def test_packed_attention_is_tried_as_it_will_be_used(monkeypatch: pytest.MonkeyPatch, started: list[Launch]) -> None:
    tried: list[Mapping[str, str]] = []

    def failures(kinds: list[str], *, every: bool, variables: Mapping[str, str]) -> dict[str, str]:
        assert (kinds, every) == (["te", "sdpa"], False), "what is not installed is not tried"
        tried.append(variables)
        return {"te": "it hung"}

    gpus(monkeypatch, 1, hip="6.4")
    monkeypatch.setattr(launcher, "missing", lambda kind: "" if kind in ("te", "sdpa") else "not installed")
    monkeypatch.setattr(launcher, "failures", failures)
    launcher.launch(JOB, None, ONE)
    assert tried == [{"NVTE_FLASH_ATTN": "0", "NVTE_FUSED_ATTN": "1", "NVTE_UNFUSED_ATTN": "0"}]
    assert started[0].job.failures == {"te": "it hung"}


def test_the_call_is_checked_before_a_gpu_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by one worker, and where nothing is known of Megatron's flags yet."""
    did: list[str] = []
    gpus(monkeypatch, 1)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(launcher.flag_table, "load", lambda: None)
    monkeypatch.setattr(launcher.flag_table, "make", lambda: did.append("flags"))
    monkeypatch.setattr(launcher, "decide_by_table", lambda job, world: did.append("checked"))
    monkeypatch.setattr(launcher, "failures", lambda kinds, **_: did.append("tried") or {})
    monkeypatch.setattr(launcher, "_run", lambda planned: did.append("run"))
    launcher.launch(JOB, None, ONE)
    assert did == ["flags", "checked", "tried", "run"]
    did.clear()
    launcher.launch(Job(shards=("a",), device="cpu"), 1, ONE)
    assert did == ["checked", "run"]


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch, started: list[Launch]) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(UsageError, match="--nproc 4, but 2"):
        launcher.launch(JOB, 4, ONE)
    gpus(monkeypatch, 0)
    with pytest.raises(DataError, match="--device cpu"):
        launcher.launch(JOB, None, ONE)
    assert started == []


def test_a_plan_needs_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is visible, eight of AMD's are assumed, or as many as the user says."""
    gpus(monkeypatch, 0)
    assert plan(JOB, None, Nodes(count=3)).world == 24
    assert plan(JOB, 4, ONE).world == 4
    assert "RCCL_MSCCL_ENABLE" in {variable.name for variable in plan(JOB, 4, ONE).variables}
    gpus(monkeypatch, 2)
    assert plan(JOB, None, ONE).world == 2
    assert plan(JOB, None, ONE, here=False).world == 8, "the machine that submits a job is not the one that runs it"
    assert "RCCL_MSCCL_ENABLE" not in {variable.name for variable in plan(JOB, None, ONE).variables}


def test_on_the_cpu_no_gpu_is_asked_for(monkeypatch: pytest.MonkeyPatch, started: list[Launch]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    os.environ.update(OMP_NUM_THREADS="7", GPU_MAX_HW_QUEUES="")
    os.environ.pop("GLOO_SOCKET_IFNAME", None)
    cpu = Job(shards=("a",), device="cpu")
    launcher.launch(cpu, None, Nodes(count=2, rank=0, master_addr="localhost"))
    assert "GLOO_SOCKET_IFNAME" not in os.environ, "another machine is not reached through lo"
    launcher.launch(cpu, None, ONE)
    assert [each.nproc for each in started] == [1, 1]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_more_workers_than_fit_into_memory_are_refused_before_any_starts(
    monkeypatch: pytest.MonkeyPatch, started: list[Launch]
) -> None:
    monkeypatch.setattr(launcher.Machine, "available_memory", lambda self: 3 << 30)
    job = Job(shards=("a",), device="cpu")
    with pytest.raises(UsageError, match=r"--nproc 64: .* 3,072 MiB are free; 7 at most"):
        launcher.launch(job, 64, ONE)
    assert started == []
    launcher.launch(job, 7, ONE)
    monkeypatch.setattr(launcher.Machine, "available_memory", lambda self: 1 << 20)
    launcher.launch(job, 1, ONE)
    monkeypatch.setattr(launcher.Machine, "available_memory", lambda self: 0)
    launcher.launch(job, 64, ONE)
    assert [each.nproc for each in started] == [7, 1, 64]


@pytest.mark.parametrize(
    ("count", "rank", "address", "words"),
    [
        (2, 0, None, "--nnodes 2: --master-addr is missing"),
        (2, None, "localhost", "--nnodes 2: --node-rank is missing"),
        (2, 2, "localhost", "--node-rank 2: with --nnodes 2 it is 0 to 1"),
        (2, -1, "localhost", "--node-rank -1"),
        (1, 3, None, "--node-rank 3: with --nnodes 1 it is 0 to 0"),
        (2, 1, "no.such.host.invalid", "--master-addr no.such.host.invalid: this machine cannot resolve it"),
        (2, 1, "a..b", r"--master-addr a\.\.b: this machine cannot resolve it"),
    ],
)
def test_machines_that_cannot_be(count: int, rank: int | None, address: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        nodes.parse(count, rank, address, 29500)


def test_machines_by_hand() -> None:
    assert nodes.parse(1, None, "no.such.host.invalid", 1) == ONE, "one machine needs no master"
    assert nodes.parse(2, 1, "localhost", 7) == Nodes(count=2, rank=1, master_addr="localhost", master_port=7)


def test_what_is_given_to_megatron() -> None:
    job = Job(shards=("a",), config={"save": "file", "async_save": True}, flags=("--load=x", "--load", "y", "--bf16"))
    assert [job.given(name) for name in ("load", "bf16", "save", "async-save", "lr")] == ["y", True, "file", True, None]


class FailedWorkers:
    """torchrun's agent, whose workers ended by the SIGTERM that was passed on to them."""

    parse_args = staticmethod(lambda words: words)

    @staticmethod
    def run(words: list[str]) -> None:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

        with pytest.raises(BaseException, match="got signal"):  # torch's own: there is no worker yet
            signal.raise_signal(signal.SIGTERM)
        raise ChildFailedError("worker", {0: ProcessFailure(local_rank=0, pid=1, exitcode=-15, error_file="none")})


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (("--save=out",), StoppedError, "stopped by SIGTERM; the same call with --load out goes on"),
        ((), DataError, "stopped by SIGTERM; nothing was saved, because --save is not given"),
    ],
)
def test_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], error: type[Exception], words: str
) -> None:
    find = importlib.import_module
    modules = {"torch.distributed.run": FailedWorkers}
    monkeypatch.setattr(
        launcher, "importlib", SimpleNamespace(import_module=lambda name: modules.get(name) or find(name))
    )
    before = signal.getsignal(signal.SIGTERM)
    planned = Launch(job=Job(shards=("a",), flags=flags), nproc=1, nodes=ONE, variables=(), gpus=0, warning="")
    with pytest.raises(error, match=words):
        launcher._run(planned)
    assert signal.getsignal(signal.SIGTERM) is before


def test_saved_and_leaving_a_worker_is_told_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a SIGTERM that comes late makes one node's end a failure, and another's agent waits for it for minutes."""
    seen = []
    setup = SimpleNamespace(job=JOB, layout=SimpleNamespace(seq_length=8))
    stage = SimpleNamespace(model_provider=lambda: None, forward_step=lambda: None, setup=setup, meter=Meter())
    configuration = SimpleNamespace(args=SimpleNamespace(save=None))
    monkeypatch.setattr(worker.TrainingLog, "watching", lambda log: contextlib.nullcontext())  # it imports Megatron
    start = SimpleNamespace(shape=None)
    monkeypatch.setattr(worker, "prepare", lambda job: (configuration, SimpleNamespace(stage=stage), start))

    def pretrain(*_: object, **__: object) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        raise SystemExit(0)  # as Megatron does

    monkeypatch.setattr(worker.compat, "pretrain", pretrain)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit):
            worker.run(JOB)
        seen.append(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIG_DFL, signal.SIG_IGN]


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        master = Nodes(count=2, rank=0, master_addr="localhost", master_port=port)
        planned = Launch(job=JOB, nproc=1, nodes=master, variables=(), gpus=0, warning="")
        with pytest.raises(DataError, match=rf"the machines did not meet at localhost:{port} \(.*is this port free"):
            launcher._run(planned)
