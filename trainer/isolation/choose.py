"""Choose what computes attention, so that conversations that share a sample never attend to each other.

- `te` is Transformer Engine's attention, in layers of Transformer Engine.
- `flash`, `torch` and `sdpa` are the kernels of `kernels`, in Megatron's own layers.

All are told where each conversation begins (Megatron's PackedSeqParams), compute no scores between conversations, and
rotary positions start at 0 with each. The rows of a micro-batch are laid one behind the other. `auto` is the first of
the four that passed its trial on this machine: in some ROCm images Transformer Engine's aborts or hangs. The CPU has
`sdpa` alone.

`te`, `flash` and `torch` were never run on an AMD GPU by this project.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.isolation.kernels import KERNELS, KINDS, TE, unsupported

FORMER_NAMES = {"thd": TE, "mask": "sdpa"}
"""Names that the option took before; `mask` was a dense block-diagonal mask."""
ISOLATIONS = ("auto", *KINDS, *FORMER_NAMES)


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """The choice, and what Megatron must be told."""

    kind: str
    """One of `kernels.KINDS`."""
    packed: bool
    """Whether a sample holds several conversations; with one, causal attention is enough."""
    reason: str
    """Why, for the summary."""

    @property
    def kernel(self) -> str:
        """What Megatron's own layers call, where there are any."""
        return self.kind if self.kind in KERNELS else KERNELS[-1]

    @property
    def flags(self) -> tuple[str, ...]:
        """Megatron's flags that the choice needs."""
        return () if self.kind == TE else ("--transformer-impl=local",)


def candidates(asked: str) -> tuple[str, ...]:
    """Return the kinds that an isolation stands for, the first to be tried first."""
    return KINDS if asked == "auto" else (FORMER_NAMES.get(asked, asked),)


def choose(
    *, asked: str, batching: str, device: str, failures: Mapping[str, str], args: Namespace, given: frozenset[str]
) -> Isolation:
    """Choose the isolation of a run.

    Args:
        asked: one of `ISOLATIONS`.
        batching, device: as in `sft_shards.trainer.job.Job`.
        failures: why kinds cannot be used on this machine, by kind: not installed, or the trial failed.
        args: Megatron's parsed flags.
        given: destinations of the flags that the user set.

    Raises:
        UsageError: the isolation that was asked for excludes one of the flags.
        DataError: this machine does not have it.
    """
    packed = batching == "packed"
    if packed and args.pipeline_model_parallel_size > 1:
        _require_one_row(args)
    kinds = candidates(asked)
    first = "as asked" if asked != "auto" else "the first choice"
    if device == "cpu" and asked == "auto":
        kinds, first = KINDS[-1:], "the CPU has no other"
    excluded = {kind: why for kind in kinds if (why := _excluded(kind, device, args, given))}
    unusable = {**failures, **excluded}
    for kind in kinds:
        if kind in unusable:
            continue
        passed_over = "; ".join(f"{other}: {unusable[other]}" for other in kinds[: kinds.index(kind)])
        tried = "; its trial was on one GPU" if kind == TE and args.context_parallel_size > 1 else ""
        return Isolation(kind=kind, packed=packed, reason=f"{passed_over or first}{tried}")
    shown = "; ".join(f"{kind}: {unusable[kind]}" for kind in kinds)
    if asked != "auto":
        problem = UsageError if kinds[0] in excluded else DataError
        others = "" if kinds[0] == KERNELS[-1] else "; leave it out, or use --isolation sdpa"
        raise problem(f"--isolation {asked}: {unusable[kinds[0]]}{others}")
    raise UsageError(f"no attention can be used ({shown}); see docs/packing.md")


def _heads_apart(args: Namespace, given: frozenset[str]) -> str:
    """Return why context-parallel ranks cannot exchange positions for heads, or ""."""
    context, tensor, heads = args.context_parallel_size, args.tensor_model_parallel_size, args.num_attention_heads
    if context == 1:
        return ""
    if "cp_comm_type" in given:
        return "--cp-comm-type is for Transformer Engine"
    if heads % (tensor * context):
        return (
            f"{heads} attention heads do not divide by TP {tensor} x CP {context}, whose ranks exchange heads without "
            f"Transformer Engine; use --context-parallel-size {math.gcd(heads // tensor, context)}"
        )
    if args.attention_dropout:
        return "--attention-dropout would drop alike on all ranks of --context-parallel-size"
    return ""


def _excluded(kind: str, device: str, args: Namespace, given: frozenset[str]) -> str:
    """Return why the flags of a run exclude a kind, or ""."""
    asked = args.transformer_impl if "transformer_impl" in given else ""
    window = getattr(args, "window_size", None) is not None
    if kind == TE:
        if device == "cpu":
            return "--device cpu does not use Transformer Engine"
        if asked == "local":
            return "--transformer-impl local does not use Transformer Engine"
        return (
            "it has no --window-size with --context-parallel-size" if window and args.context_parallel_size > 1 else ""
        )
    if device == "cpu" and kind != "sdpa":
        return "--device cpu has no such kernel"
    if asked and asked != "local":
        return f"--transformer-impl {asked} has an attention of its own"
    if getattr(args, "softmax_type", "vanilla") != "vanilla":
        return f"--softmax-type {args.softmax_type} needs Transformer Engine"
    return unsupported(kind, dropout=bool(args.attention_dropout), window=window) or _heads_apart(args, given)


def _require_one_row(args: Namespace) -> None:
    """Raise UsageError if pipeline stages would exchange several packed rows, which are laid one behind the other."""
    for name in ("micro_batch_size", "eval_micro_batch_size"):
        rows = getattr(args, name, None) or 1
        if rows != 1:
            raise UsageError(
                f"--{name.replace('_', '-')} {rows}: pipeline stages exchange one packed row; use 1 and a longer "
                "--seq-length, or --batching padded"
            )
