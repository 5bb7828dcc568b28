"""One training process: `torchrun … -m sft_shards.trainer.worker JOB`, started by `sft_shards.trainer.launch.launcher`.

    Job ──resolve──▶ Decision ──▶ Megatron's pretrain()

A worker writes why it failed where torchrun reads it (its error file); the launcher shows it once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.terminal import printable_text, say
from sft_shards.trainer.data.samples import TrainSamples
from sft_shards.trainer.isolation.consensus import failures_of_all
from sft_shards.trainer.isolation.kernels import absent
from sft_shards.trainer.job import LAUNCHER, Job
from sft_shards.trainer.mcore import compat, cpu_device, hip
from sft_shards.trainer.mcore.dataset_provider import DatasetProvider
from sft_shards.trainer.mcore.training_log import TrainingLog
from sft_shards.trainer.model import sidecar
from sft_shards.trainer.model.start import TRACKER, Start, providing
from sft_shards.trainer.resolve import decide
from sft_shards.trainer.stage import Stage

PR_SET_PDEATHSIG = 1
"""`prctl` of <sys/prctl.h>: which signal this process gets when its parent ends."""


def prepare(job: Job) -> tuple[compat.Configuration, DatasetProvider, Start]:
    """Check the call and the shards, and let Megatron validate its flags.

    Returns:
        Megatron's validated flags (its global state is set), the data set provider, and where weights come from.

    Raises:
        UsageError: the flags are wrong.
        DataError: the shards are, or do not fit the model.
    """
    compat.check_installed()
    import torch

    first = os.environ.get("RANK", "0") == "0"
    with compat.quiet():
        if job.device == "cpu":
            cpu_device.install()
        warnings = [compat.check_version(), hip.save_without_pinned_memory(torch.version.hip)]
    if first:
        _show(f"warning: {warning}" for warning in warnings if warning)
    job = dataclasses.replace(job, failures=failures_of_all({**absent(), **job.failures}, os.environ))
    decision = decide(job, int(os.environ.get("WORLD_SIZE", "1")))
    if first:
        _show(decision.summary)
    provider = DatasetProvider(stage=decision.stage, eval_pass=decision.eval_pass, consumed=compat.consumed_samples)
    return decision.configure(), provider, decision.start


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        say(f"sft-train: {line}", err=True)


def run(job: Job) -> None:
    """Train until the schedule ends; raises what `prepare` and `compat.pretrain` raise."""
    with compat.uncollected():
        args, provider, start = prepare(job)
    stage = provider.stage
    evaluated = stage.setup.job.evaluate
    save, shape = args.args.save, start.shape
    if evaluated is None and save and shape is not None and shape.architecture and os.environ.get("RANK", "0") == "0":
        shards = stage.setup.directories[0][2]
        sidecar.write(
            Path(save),
            shape=shape,
            base=job.model,
            shards=job.shards,
            manifest=shards.manifest,
            directory=shards.path,
            adapter=start.lora,
        )
    if evaluated is None and job.log_batches and os.environ.get("RANK", "0") == "0":
        _log_batches(stage, job.log_batches, Path(save) / "batches.html" if save else Path("sft-train-batches.html"))
    model, step = providing(stage.model_provider(), start), stage.forward_step()
    last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
    log = TrainingLog(
        meter=stage.meter, seq_length=stage.setup.layout.seq_length, say=(lambda line: _show([line])) if last else _drop
    )
    try:
        with log.watching():
            compat.pretrain(args, provider=provider, model_provider=model, forward_step=step)
        if evaluated is None:
            log.end(_saved(save, start) if save else None)
        elif last:
            for line in log.evaluation(evaluated):
                say(line)
    finally:
        # Another node's SIGTERM has made this worker save and end already. Its own may still come, and must not turn
        # its end into a failure: torchrun's agents would wait for each other.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _drop(line: str) -> None:
    pass


def _saved(save: str, start: Start) -> str:
    """Say where the last checkpoint is, and what makes a Hugging Face model of it, if anything does."""
    tracker = Path(save) / TRACKER
    if not tracker.is_file():
        return f"no checkpoint is seen in {save}"
    step = tracker.read_text("utf-8").strip()
    said = f"checkpoint of step {step} in {save}"
    if start.shape is None or not start.shape.architecture:
        return said
    return f"{said}; for a Hugging Face model: {shlex.join(['sft-train', 'export', save, '--output', f'{save}-hf'])}"


def _log_batches(stage: Stage, count: int, path: Path) -> None:
    """Write the first batches of a run as a page; a stage whose samples are of another kind has none."""
    from sft_shards.formats.pages.page import write
    from sft_shards.trainer.data import first_batches

    layout, directories = stage.setup.layout, stage.setup.directories
    samples = stage.train_samples(count * layout.global_batch)
    if not isinstance(samples, TrainSamples):
        _show([f"--log-batches: stage {stage.setup.job.stage} has samples of its own, which no page shows"])
        return
    page = first_batches.page(
        samples,
        batches=count,
        global_batch=layout.global_batch,
        seq_length=layout.seq_length,
        names=[source.name for source in samples.mixture.sources],
        directory=directories[0][2],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, page)
    shown = "the first batch" if count == 1 else f"the first {count} batches"
    _show([f"{shown}: {path} (it shows texts of the data)"])


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that ends, and end now if it has ended already.

    A worker whose torchrun agent was killed (SIGKILL, out of memory) would go on, hold its GPU, and write the
    checkpoints that the run started in its place writes too. Linux only.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    ended = os.getppid() != parent
    try:  # it may have ended while this process was importing; who starts torchrun by hand sets no such variable
        os.kill(int(os.environ.get(LAUNCHER, os.getpid())), 0)
    except ProcessLookupError:
        ended = True
    except PermissionError:  # another user's process, so there is one
        pass
    if ended:
        os.kill(os.getpid(), signal.SIGKILL)


def main(start: Callable[[Job], None] = run) -> int:
    """Run the job in `sys.argv[1]` and return the exit status: 0 done, 1 data or machine, 2 the call is wrong."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is reported once, by the launcher
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # Slurm may send it to all; the launcher passes it on as SIGTERM
    job = Job.loads(sys.argv[1])
    try:
        start(job)
    except (UsageError, DataError) as error:
        _report(str(error))
        return error.exit_code
    except Exception as error:  # of Megatron, torch or a stage: the traceback, and its last line as the reason
        sys.stderr.write(printable_text(traceback.format_exc()))
        last = " ".join("".join(traceback.format_exception_only(error)).split())
        _report(f"worker {os.environ.get('RANK', '0')} failed: {last}")
        return DataError.exit_code
    return 0


def _report(message: str) -> None:
    """Write why this worker failed to torchrun's error file; without one (no torchrun) to standard error."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        say(f"sft-train: {message}", err=True)
        return
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"message": message, "timestamp": int(time.time())}, file)


def end_after_parent() -> None:
    """Have a thread end this process within a second of its parent's end.

    For Megatron's checkpoint writers, which outlive a worker that was killed. `die_with_parent` is not for them: the
    kernel would end them with the thread that started them, and that may be a short one.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__mp_main__":  # a checkpoint writer of Megatron's, which imports its parent's main module again
    end_after_parent()
if __name__ == "__main__":
    sys.exit(main())
