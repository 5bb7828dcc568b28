"""How conversations that share a sequence are kept from seeing each other.

`thd` tells Transformer Engine's attention where each conversation begins (Megatron's PackedSeqParams): no work is
spent between conversations, and rotary positions start at 0 with each. It wants one row a micro-batch. `mask` gives
Megatron's own attention a dense block-diagonal mask: it runs everywhere, computes all N x N scores, and holds the
rotary angles of the place in the row, which comes to the same, because attention sees differences of angles only
(learned positions are looked up by `position_ids`, and start at 0). `auto` takes `thd` where a trial of it on the GPU
gave the right numbers (some ROCm images abort or hang in it), else `mask`; it never packs without one of the two.

`thd` was never run on an AMD GPU by this project.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sft_shards.formats.errors import DataError, UsageError

ISOLATIONS = ("auto", "thd", "mask")
PROBE = (sys.executable, "-m", "sft_shards.trainer.isolation.trial")
PROBE_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """What was chosen."""

    kind: str
    """`thd`, `mask`, or `single`: a sample holds one conversation, causal attention is enough."""
    reason: str
    flags: tuple[str, ...] = field(default=())
    """Megatron flags that go with it."""


def probe(
    command: Sequence[str] = PROBE, seconds: float = PROBE_SECONDS, variables: Mapping[str, str] | None = None
) -> str:
    """Try packed attention on this machine's first GPU, in a process of its own: "" if it is right, else why not.

    Args:
        variables: added to its environment, so that it tries the attention that will be trained with.
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


def choose(
    *, asked: str, batching: str, device: str, trial: str, engine: bool, args: Namespace, given: frozenset[str]
) -> Isolation:
    """Settle on a way.

    Args:
        asked: one of `ISOLATIONS`.
        trial: what `probe` said; "" on success.
        engine: Transformer Engine can be imported.
        args: Megatron's flags.
        given: those of them that the user set.

    Raises:
        UsageError: what was asked for cannot go with the flags.
        DataError: it cannot be had on this machine.
    """
    if batching == "padded":
        return Isolation(kind="single", reason="one conversation per sample")
    local = "transformer_impl" in given and args.transformer_impl == "local"
    if asked == "thd":
        if device == "cpu" or local:
            why = "--device cpu" if device == "cpu" else "--transformer-impl local"
            raise UsageError(
                f"--isolation thd needs Transformer Engine, which {why} does without; use --isolation mask"
            )
        if not engine:
            raise DataError("--isolation thd needs Transformer Engine, which is not installed; use --isolation mask")
        return _thd(args, "as asked")
    if asked == "mask":
        return _mask(args, given, "as asked")
    if device == "cpu" or local:
        return _mask(args, given, "the CPU has no packed attention" if device == "cpu" else "--transformer-impl local")
    if not engine:
        return _mask(args, given, "Transformer Engine is not installed")
    if trial:
        return _mask(args, given, f"packed attention failed its trial: {trial}")
    return _thd(args, "packed attention passed its trial")


def _thd(args: Namespace, reason: str) -> Isolation:
    for name in ("micro_batch_size", "eval_micro_batch_size"):
        rows = getattr(args, name, None) or 1
        if rows != 1:
            raise UsageError(
                f"--{name.replace('_', '-')} {rows}: packed attention (thd) takes one row; use 1 and a longer "
                "--seq-length, or --isolation mask"
            )
    return Isolation(kind="thd", reason=reason)


def _mask(args: Namespace, given: frozenset[str], reason: str) -> Isolation:
    if "transformer_impl" in given and args.transformer_impl != "local":
        raise UsageError(
            f"--transformer-impl {args.transformer_impl} takes no block-diagonal mask ({reason}); leave it out, "
            "or use --batching padded"
        )
    if getattr(args, "window_size", None) is not None:
        raise UsageError("--window-size replaces the block-diagonal mask; use --isolation thd or --batching padded")
    # Megatron's fused causal softmax ignores the mask it is given.
    return Isolation(kind="mask", reason=reason, flags=("--transformer-impl=local", "--no-masked-softmax-fusion"))


def block_mask(position_ids: Any) -> Any:
    """bool[b, 1, s, s], True where a position (third axis) does not see another (fourth), as Megatron masks.

    Args:
        position_ids: int[b, s], 0 at the first position of each conversation.
    """
    import torch

    segment = (position_ids == 0).cumsum(dim=1)
    size = position_ids.shape[1]
    later = torch.ones(size, size, dtype=torch.bool, device=position_ids.device).triu(1)
    return ((segment.unsqueeze(2) != segment.unsqueeze(1)) | later).unsqueeze(1)


def packed_seq_params(position_ids: Any) -> Any:
    """Megatron's PackedSeqParams for one row; on the CPU, so that nothing waits for the GPU.

    Args:
        position_ids: int[1, s] on the CPU, 0 at the first position of each conversation.
    """
    import torch
    from megatron.core.packed_seq_params import PackedSeqParams

    rows, size = position_ids.shape
    assert rows == 1, "thd takes one row"
    starts = torch.nonzero(position_ids[0] == 0).flatten()
    bounds = torch.cat([starts, torch.tensor([size])]).to(torch.int32)
    longest = int((bounds[1:] - bounds[:-1]).max())
    on_gpu = bounds.cuda(non_blocking=True)
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=on_gpu,
        cu_seqlens_kv=on_gpu,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
