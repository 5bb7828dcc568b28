"""Try a kind of attention on this machine's first GPU.

Two segments that are packed together must give the output and gradients that plain attention, written out here, gives
each of them alone. `probe` runs `python -m sft_shards.trainer.isolation.trial KIND` in a process of its own under a
time limit, because Transformer Engine's packed attention aborts or hangs in some ROCm images. The process prints `ok`,
or what is wrong. It was never run on an AMD GPU by this project.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sft_shards.trainer.isolation.kernels import Options, load
from sft_shards.trainer.isolation.segments import Segments, find_segments

COMMAND = (sys.executable, "-m", "sft_shards.trainer.isolation.trial")
SECONDS = 180.0
LENGTHS = (48, 80)
"""Positions of the two segments."""
HEADS, GROUPS, CHANNELS = 4, 2, 64


def failures(
    kinds: Iterable[str], *, every: bool = False, variables: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Try kinds of attention one after the other, until one is right; return why the others failed, by kind.

    Args:
        kinds: as in `kernels.KINDS`.
        every: go on after one was right, since it may fail on another node.
        variables: as for `probe`.
    """
    found: dict[str, str] = {}
    for kind in kinds:
        wrong = probe(kind, variables=variables)
        if wrong:
            found[kind] = wrong
        elif not every:
            break
    return found


def probe(
    kind: str,
    *,
    command: Sequence[str] = COMMAND,
    seconds: float = SECONDS,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Try a kind in a process of its own; return "" if it is right, else what went wrong in one line.

    Args:
        kind: one of `kernels.KINDS`.
        command: the process, to which the kind is given, and which prints `ok` on success.
        seconds: time limit, imports included.
        variables: added to its environment, so that it tries the attention backend of the training.
    """
    environment = {**os.environ, **(variables or {})}
    call = [*command, kind]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=seconds, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:.0f} s"
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode or last != "ok":
        return last[:200] or f"exit status {done.returncode}"
    return ""


def plain(query: Any, key: Any, value: Any, segments: Segments, options: Options) -> Any:
    """Attend by the definition, with all scores; as `kernels.Kernel`, without dropout and window."""
    import torch

    outputs, first = [], 0
    for length in segments.lengths:
        here = slice(first, first + length)
        times = query.shape[1] // key.shape[1]
        keys, values = (part[here].repeat_interleave(times, dim=1) for part in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[here], keys) * options.scale
        later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(later, -math.inf).softmax(-1), values))
        first += length
    return torch.cat(outputs)


def transformer_engine() -> Any:
    """Return Transformer Engine's attention as one of `kernels.Kernel`."""
    from transformer_engine.pytorch import DotProductAttention

    attention = DotProductAttention(
        HEADS, CHANNELS, num_gqa_groups=GROUPS, attention_dropout=0.0, attn_mask_type="padding_causal"
    )

    def attend(query: Any, key: Any, value: Any, segments: Segments, _: Options) -> Any:
        return attention(
            query,
            key,
            value,
            qkv_format="thd",
            attn_mask_type="padding_causal",
            cu_seqlens_q=segments.bounds,
            cu_seqlens_kv=segments.bounds,
            max_seqlen_q=max(segments.lengths),
            max_seqlen_kv=max(segments.lengths),
        ).reshape(query.shape)

    return attend


def difference(kernel: Any, *, device: str, dtype: Any) -> float:
    """Return how far output and gradients of a kernel are from plain attention, in the largest value of either."""
    import torch

    torch.manual_seed(0)
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).unsqueeze(0)
    segments = find_segments(positions, device)
    shapes = [(sum(LENGTHS), heads, CHANNELS) for heads in (HEADS, GROUPS, GROUPS, HEADS)]
    *inputs, weight = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)

    def run(attend: Any, kind: Any) -> list[Any]:
        leaves = [each.detach().to(kind).requires_grad_() for each in inputs]
        output = attend(*leaves, segments, Options(scale=1 / math.sqrt(CHANNELS)))
        (output * weight.to(kind)).sum().backward()
        return [output.detach(), *(leaf.grad for leaf in leaves)]

    found, expected = run(kernel, dtype), run(plain, torch.float64)
    return max(float((a.double() - b).abs().max()) for a, b in zip(found, expected, strict=True))


def main(kind: str) -> int:
    """Compare a kind with plain attention; print `ok`, or what is wrong as the last line."""
    import torch

    try:
        kernel = transformer_engine() if kind == "te" else load(kind)
    except Exception as error:  # whatever a broken build raises
        print(f"it cannot be imported ({type(error).__name__}: {' '.join(str(error).split())})")
        return 1
    worst = difference(kernel, device="cuda", dtype=torch.bfloat16)
    if not worst < 0.1:  # NaN is wrong too
        print(f"packed segments differ from the same ones alone by {worst}")
        return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
