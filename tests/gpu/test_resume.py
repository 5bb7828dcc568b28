"""Killed and resumed, a deterministic run prints the digits of one that was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpu_calls import FLAGS, steps, train

STEPS, SAVED, KILLED = 12, 4, 6


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(
    shards: Path, base: Path, tmp_path: Path, device: str
) -> None:
    flags = [f"--train-iters={STEPS}", "--lr=1e-3", "--global-batch-size=4", "--deterministic-mode"]
    flags += ["--lr-decay-style=constant", "--no-bias-swiglu-fusion"]
    options = ("--isolation", "sdpa", "--cache-dir", str(tmp_path / "cache"))
    straight = steps(train(shards, base, device, *flags, options=options))
    kept = [*flags, f"--save={tmp_path / 'saved'}", f"--load={tmp_path / 'saved'}", f"--save-interval={SAVED}"]
    command = [sys.executable, "-m", "sft_shards.trainer", "--shards", str(shards), "--model", str(base)]
    command += ["--device", device, "--nproc", "1", *options, "--", *FLAGS, *kept]
    log = tmp_path / "log"
    with log.open("w") as file:
        running = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 500
        while not {KILLED} & set(steps(log.read_text())):
            assert running.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    resumed = steps(train(shards, base, device, *kept, options=options))
    assert min(resumed) == SAVED + 1, "from the checkpoint"
    late = range(SAVED + 3, STEPS + 1)  # Megatron's second line after a start shows a mean
    assert {step: resumed[step] for step in late} == {step: straight[step] for step in late}
    assert len({loss for loss, _ in straight.values()}) == STEPS
