"""Start the worker processes of this machine with torchrun, and report how they ended.

torchrun's agent runs inside this process (`torch.distributed.run.run`, which the `torchrun` command calls), so that
signals reach it directly and a worker's failure becomes one line instead of torchrun's report. `plan` computes the
start without touching a GPU; `--dry-run` shows the plan, `launch` carries it out.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.terminal import say, status
from sft_shards.trainer.doctor.machine import Machine
from sft_shards.trainer.isolation.choose import candidates
from sft_shards.trainer.isolation.kernels import missing
from sft_shards.trainer.isolation.trial import failures
from sft_shards.trainer.job import LAUNCHER, Job
from sft_shards.trainer.launch import amd, cpu, environment
from sft_shards.trainer.launch.environment import Variable, Wanted
from sft_shards.trainer.launch.gpus import count, hip_version
from sft_shards.trainer.launch.nodes import Nodes
from sft_shards.trainer.launch.preemption import Handler, StoppedError
from sft_shards.trainer.launch.stderr_tail import StderrTail
from sft_shards.trainer.mcore import attention_backends, compat, flag_table
from sft_shards.trainer.resolve import decide_by_table

USUAL_GPUS = 8
"""GPUs on each node that a plan assumes if this machine has none."""
QUIET = ",".join(f"ignore::{kind}" for kind in ("UserWarning", "FutureWarning", "DeprecationWarning"))
WARNINGS: Wanted = {"PYTHONWARNINGS": (QUIET, "Megatron and torch print dozens at every start")}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The plan of a start."""

    job: Job
    nproc: int
    """Workers on each machine."""
    nodes: Nodes
    variables: tuple[Variable, ...]
    """The workers' environment."""
    gpus: int
    """GPUs that torch sees on this machine."""
    warning: str
    """What is known not to work on this machine; "": nothing."""

    @property
    def world(self) -> int:
        """Workers on all machines."""
        return self.nproc * self.nodes.count

    def torchrun(self) -> list[str]:
        """Return the arguments of the torchrun command that starts the workers."""
        return [
            *self.nodes.torchrun(),
            f"--nproc-per-node={self.nproc}",
            "-m",
            "sft_shards.trainer.worker",
            self.job.dumps(),
        ]


def plan(job: Job, nproc: int | None, nodes: Nodes, *, here: bool = True) -> Launch:
    """Plan the start of a job; no GPU is touched, and none needs to be there.

    Args:
        nproc: workers on each machine; None: one per GPU, or one on the CPU.
        nodes: the machines.
        here: the job starts on this machine; otherwise on others, which are assumed to have eight AMD GPUs each.

    Raises:
        UsageError: more workers than GPUs.
    """
    if job.device == "cpu":
        nproc = nproc or 1
        wanted = cpu.wanted(_cores(), nproc, alone=nodes.count == 1)
        gpus, warning = 0, ""
    else:
        gpus, hip = count() if here else 0, hip_version()
        if gpus and nproc is not None and nproc > gpus:
            raise UsageError(f"--nproc {nproc}, but {gpus} GPU(s) are visible; leave --nproc out to use them all")
        nproc = nproc or gpus or USUAL_GPUS
        rocm = hip is not None or not gpus
        wanted, warning = amd.wanted(job, os.environ, rocm=rocm), amd.warning(job, hip)
        job = dataclasses.replace(job, attention=amd.backend(job, os.environ) if rocm else "")
    variables = environment.plan({**wanted, **WARNINGS}, os.environ)
    return Launch(job=job, nproc=nproc, nodes=nodes, variables=variables, gpus=gpus, warning=warning)


def launch(job: Job, nproc: int | None, nodes: Nodes) -> None:
    """Run the job on this machine and return when it is done.

    Args:
        nproc: as for `plan`.

    Raises:
        UsageError, DataError: the reason of the first worker that failed.
        StoppedError: a signal ended the run after a checkpoint; the same call resumes it.
        KeyboardInterrupt: the user interrupted; the workers have ended.
    """
    planned = plan(job, nproc, nodes)
    if job.device == "gpu" and not planned.gpus:
        raise DataError(
            "no GPU is visible to torch on this machine; add --device cpu to rehearse the same path without one"
        )
    warn(planned.warning)
    environment.apply(planned.variables, os.environ)
    _check(planned)
    if job.device == "cpu":
        cpu.require_memory(planned.nproc, Machine(device="cpu", imported={}).available_memory())
    if job.device == "gpu":
        installed = [kind for kind in candidates(job.isolation) if not missing(kind)]
        backend = attention_backends.as_environment(planned.job.attention)
        failed = failures(installed, every=nodes.count > 1, variables=backend)
        planned = dataclasses.replace(planned, job=dataclasses.replace(planned.job, failures=failed))
    _run(planned)


def warn(text: str) -> None:
    """Print a warning, unless it is empty."""
    if text:
        say(f"sft-train: warning: {text}", err=True)


def torchrun() -> list[str]:
    """Return the torchrun command of this Python."""
    beside = Path(sys.executable).with_name("torchrun")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "torch.distributed.run"]


def _check(planned: Launch) -> None:
    """Check the call once, before a GPU is tried and the workers each check it again; raises what `launch` raises."""
    if (planned.world > 1 or planned.job.device == "gpu") and flag_table.load() is None:
        status("asking Megatron for its flags, once")
        flag_table.make()
    status(f"checking the call, then starting {planned.nproc} worker(s)")
    decide_by_table(planned.job, planned.world)


def _run(planned: Launch) -> None:
    """Run torchrun's agent until all workers have ended; raises what `launch` raises."""
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    with compat.uncollected():
        run: Any = importlib.import_module("torch.distributed.run")
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous import RendezvousError

    unmet = (RendezvousError, importlib.import_module("torch.distributed").DistError)

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    with Handler() as handler, StderrTail() as tail:
        try:
            run.run(run.parse_args(planned.torchrun()))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if handler.received is None or os.path.isfile(failure.error_file):
                raise _worker_error(rank, failure, tail.last) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            if handler.received is None:
                raise DataError(f"stopped by {error.sigval.name}; the workers were ended with it") from None
        except unmet as error:
            raise DataError(
                f"the machines did not meet at {planned.nodes.master_addr or 'localhost'}:{planned.nodes.master_port} "
                f"({' '.join(str(error).split())[:200]}); is this port free on node 0, and can all reach it?"
            ) from None
    if handler.received is not None:
        raise _stopped(planned.job, handler.received)


def _stopped(job: Job, received: signal.Signals) -> StoppedError | DataError:
    save = job.given("save")
    if not save:
        return DataError(f"stopped by {received.name}; nothing was saved, because --save is not given")
    return StoppedError(
        f"stopped by {received.name}; the same call with --load {save} goes on from its last checkpoint"
    )


def _worker_error(rank: int, failure: Any, last_line: str) -> UsageError | DataError:
    """Return the failure of a worker as an error of this process.

    Args:
        failure: torchrun's `ProcessFailure`; its `error_file` is there if the worker could say why it failed.
        last_line: of standard error, for a worker that could not.
    """
    if os.path.isfile(failure.error_file):
        kind = UsageError if failure.exitcode == UsageError.exit_code else DataError
        return kind(failure.message)
    said = f"; the last line on standard error: {last_line}" if last_line else ""
    if failure.exitcode >= 0:
        return DataError(f"worker {rank} ended with exit status {failure.exitcode}{said}")
    name = signal.Signals(-failure.exitcode).name
    killed = " (by the kernel, if the machine ran out of memory: see dmesg)" if name == "SIGKILL" else ""
    return DataError(f"worker {rank} was ended by {name}{killed}{said}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
