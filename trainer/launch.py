"""Start the worker processes with torchrun (one or many, the same way), and end with their exit status.

torchrun's agent runs inside this process (`torch.distributed.run.run`, what the `torchrun` command calls), so that
signals reach it directly and a worker's clean failure becomes one line here instead of torchrun's report.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import signal
from typing import Any

from formats.errors import DataError, UsageError
from trainer import amd, cpu
from trainer.isolation import probe
from trainer.job import Job
from trainer.model import has_transformer_engine

QUIET = ",".join(f"ignore::{kind}" for kind in ("UserWarning", "FutureWarning", "DeprecationWarning"))
"""Python's warnings in workers, unless PYTHONWARNINGS is set: Megatron and torch give dozens on every start."""


def torchrun_arguments(job: Job, nproc: int) -> list[str]:
    """The arguments of the torchrun command that this call stands for."""
    return ["--standalone", "--nproc-per-node", str(nproc), "-m", "trainer.worker", job.dumps()]


def launch(job: Job, nproc: int | None) -> None:
    """Run the job on this machine and return when it is done.

    Args:
        nproc: worker processes; None is one per GPU, or one on the CPU.

    Raises:
        UsageError, DataError: as the first worker that failed said.
        KeyboardInterrupt: the user interrupted; the workers are gone.
    """
    os.environ.setdefault("PYTHONWARNINGS", QUIET)
    if job.device == "cpu":
        nproc = nproc or 1
        for name, value in cpu.environment(_cores(), nproc).items():
            os.environ.setdefault(name, value)
        _run(job, nproc)
        return
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        raise DataError(
            "no GPU is visible to torch on this machine; add --device cpu to rehearse the same path without one"
        )
    if nproc is not None and nproc > gpus:
        raise UsageError(f"--nproc {nproc}, but {gpus} GPU(s) are visible; leave --nproc out to use them all")
    amd.apply(rocm=torch.version.hip is not None)
    if job.batching == "packed" and job.isolation == "auto" and has_transformer_engine():
        job = dataclasses.replace(job, trial=probe())
    _run(job, nproc or gpus)


def _run(job: Job, nproc: int) -> None:
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    run: Any = importlib.import_module("torch.distributed.run")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(torchrun_arguments(job, nproc)))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise _said(rank, failure) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise DataError(f"stopped by {signal.Signals(error.sigval).name}; the workers were ended with it") from None


def _said(rank: int, failure: Any) -> UsageError | DataError:
    """The failure of a worker as an error of this process."""
    if os.path.isfile(failure.error_file):
        kind = UsageError if failure.exitcode == UsageError.exit_code else DataError
        return kind(failure.message)
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
        return DataError(f"worker {rank} was ended by {name}{hint}")
    return DataError(f"worker {rank} ended with exit status {failure.exitcode}; its own words stand above")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
