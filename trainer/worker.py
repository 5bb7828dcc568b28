"""One training process: `torchrun … -m sft_shards.trainer.worker JOB`, started by `sft_shards.trainer.launch.launcher`.

    Job ─▶ decision ─▶ Megatron's pretrain()

A clean failure is written where torchrun reads it (its error file) and shown once, by the launcher.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.isolation.consensus import trial_of_all
from sft_shards.trainer.job import Job
from sft_shards.trainer.mcore import compat, cpu_device
from sft_shards.trainer.mcore.dataset_provider import DatasetProvider
from sft_shards.trainer.model import record
from sft_shards.trainer.model.start import Start, providing
from sft_shards.trainer.resolve import decide


def prepare(job: Job) -> tuple[compat.Configuration, DatasetProvider, Start]:
    """Check the call and the shards, and have Megatron validate its flags.

    Returns:
        Megatron's validated arguments (its global state is set), the data set provider, and where weights come from.

    Raises:
        UsageError: the flags are wrong.
        DataError: the shards are, or do not fit the model.
    """
    compat.check_installed()
    first = os.environ.get("RANK", "0") == "0"
    with compat.quiet():
        if job.device == "cpu":
            cpu_device.install()
        warning = compat.check_version()
    if first:
        _show([f"warning: {warning}"] if warning else [])
    job = dataclasses.replace(job, trial=trial_of_all(job.trial, os.environ))
    decision = decide(job, int(os.environ.get("WORLD_SIZE", "1")))
    if first:
        _show(decision.summary)
    provider = DatasetProvider(stage=decision.stage, eval_pass=decision.eval_pass)
    return decision.configure(), provider, decision.start


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"sft-train: {line}", file=sys.stderr, flush=True)


def run(job: Job) -> None:
    """Train; raises what `prepare` raises."""
    args, provider, start = prepare(job)
    stage = provider.stage
    save, shape = args.args.save, start.shape
    if save and shape is not None and shape.architecture and os.environ.get("RANK", "0") == "0":
        shards = stage.setup.directories[0][2]
        record.write(
            Path(save), shape=shape, base=job.model, shards=job.shards, manifest=shards.manifest, directory=shards.path
        )
    model, step = providing(stage.model_provider(), start), stage.forward_step()
    try:
        compat.pretrain(args, provider=provider, model_provider=model, forward_step=step)
    finally:
        # Told to stop by another node, this worker has saved already: its own SIGTERM, coming late, must not make its
        # end look like a failure, or torchrun's agents wait for each other.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def main(start: Callable[[Job], None] = run) -> int:
    """Run the job in `sys.argv`; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is reported once, by the launcher
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # Slurm may send it to all; the launcher passes it on as SIGTERM
    job = Job.loads(sys.argv[1])
    try:
        start(job)
    except (UsageError, DataError) as error:
        report = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not report:
            print(f"sft-train: {error}", file=sys.stderr)
            return error.exit_code
        with open(report, "w", encoding="utf-8") as file:
            json.dump({"message": str(error), "timestamp": int(time.time())}, file)
        return error.exit_code
    return 0


if __name__ == "__main__":  # Megatron's checkpoint writers import this module again
    sys.exit(main())
