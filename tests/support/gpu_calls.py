"""Calls of `sft-train` on the CPU or on GPUs, as a user makes them, and what they print."""

from __future__ import annotations

import re
from pathlib import Path

from toy_runs import sft_train

FLAGS = ("--seq-length=64", "--micro-batch-size=1", "--eval-iters=0", "--log-interval=1", "--weight-decay=0")


def train(
    shards: Path, base: Path, device: str, *flags: object, nproc: int = 1, options: tuple[object, ...] = ()
) -> str:
    """What a call prints; `options` are those of `sft-train`, `flags` those of Megatron."""
    call = ["--shards", shards, "--model", base, "--device", device, "--nproc", nproc, *options]
    done = sft_train(*call, "--", *FLAGS, *flags, timeout=580)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def steps(output: str) -> dict[int, tuple[str, str]]:
    """Loss and norm of the gradient by step, as printed."""
    found = re.findall(r"iteration +(\d+)/.*lm loss: (\S+).*grad norm: (\S+)", output)
    return {int(step): (loss, norm) for step, loss, norm in found}
