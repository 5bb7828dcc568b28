"""Try Transformer Engine's packed (thd) attention on this machine's first GPU.

Two segments that are packed together must give the output and gradients that each gives alone. `probe` runs
`python -m sft_shards.trainer.isolation.trial` in a process of its own under a time limit, because packed attention
aborts or hangs in some ROCm images. The process prints `ok`, or what is wrong. It was never run on an AMD GPU by this
project.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

PROBE = (sys.executable, "-m", "sft_shards.trainer.isolation.trial")
PROBE_SECONDS = 180.0
LENGTHS = (48, 80)
"""Positions of the two segments."""
HEADS, CHANNELS = 4, 64


def probe(
    command: Sequence[str] = PROBE, seconds: float = PROBE_SECONDS, variables: Mapping[str, str] | None = None
) -> str:
    """Try packed attention in a process of its own; return "" if it is right, else what went wrong in one line.

    Args:
        command: the process, which prints `ok` on success.
        seconds: time limit, imports included.
        variables: added to its environment, so that it tries the attention backend of the training.
    """
    environment = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:.0f} s"
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode or last != "ok":
        return last[:200] or f"exit status {done.returncode}"
    return ""


def main() -> int:
    """Compare packed segments with single ones; print `ok`, or what is wrong as the last line."""
    import torch

    try:
        from transformer_engine.pytorch import DotProductAttention
    except Exception as error:  # whatever a broken build raises
        print(f"Transformer Engine cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})")
        return 1
    torch.manual_seed(0)
    attention = DotProductAttention(HEADS, CHANNELS, attention_dropout=0.0, attn_mask_type="padding_causal")
    query, key, value, weight = (
        torch.randn(sum(LENGTHS), HEADS, CHANNELS, device="cuda", dtype=torch.bfloat16) for _ in range(4)
    )

    def run(first: int, last: int, bounds: list[int]) -> list[torch.Tensor]:
        inputs = [each[first:last].detach().clone().requires_grad_() for each in (query, key, value)]
        starts = torch.tensor(bounds, dtype=torch.int32, device="cuda")
        longest = max(b - a for a, b in itertools.pairwise(bounds))
        output = attention(
            *inputs,
            qkv_format="thd",
            attn_mask_type="padding_causal",
            cu_seqlens_q=starts,
            cu_seqlens_kv=starts,
            max_seqlen_q=longest,
            max_seqlen_kv=longest,
        ).reshape(last - first, HEADS, CHANNELS)
        (output * weight[first:last]).sum().backward()
        return [output.detach(), *(each.grad for each in inputs if each.grad is not None)]

    cut, end = LENGTHS[0], sum(LENGTHS)
    together = run(0, end, [0, cut, end])
    alone = [torch.cat(pair) for pair in zip(run(0, cut, [0, cut]), run(cut, end, [0, end - cut]), strict=True)]
    worst = max(float((a.float() - b.float()).abs().max()) for a, b in zip(together, alone, strict=True))
    if len(together) != 4 or not worst < 0.05:
        print(f"packed segments differ from the same ones alone by {worst}")
        return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
