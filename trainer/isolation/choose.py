"""Choose how conversations that share a sample are kept from attending to each other.

- `thd` tells Transformer Engine's attention where each conversation begins (Megatron's PackedSeqParams). No scores are
  computed between conversations, and rotary positions start at 0 with each. A micro-batch must have one row.
- `mask` gives Megatron's own attention a dense block-diagonal mask. It runs everywhere and computes all N x N scores.
  Rotary angles count along the whole row, which changes nothing, because attention depends on differences of angles
  only; learned positions are looked up by `position_ids` and start at 0.
- `auto` is `thd` if its trial passed (in some ROCm images it aborts or hangs), else `mask`. Conversations are never
  packed without one of the two.

`thd` was never run on an AMD GPU by this project.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field

from sft_shards.formats.errors import DataError, UsageError

ISOLATIONS = ("auto", "thd", "mask")


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """The choice, and what Megatron must be told."""

    kind: str
    """`thd`, `mask`, or `single`: a sample holds one conversation, and causal attention is enough."""
    reason: str
    """Why, for the summary."""
    flags: tuple[str, ...] = field(default=())
    """Megatron's flags that the choice needs."""


def choose(
    *, asked: str, batching: str, device: str, trial: str, engine: bool, args: Namespace, given: frozenset[str]
) -> Isolation:
    """Choose the isolation of a run.

    Args:
        asked: one of `ISOLATIONS`.
        batching, device: as in `sft_shards.trainer.job.Job`.
        trial: what `trial.probe` returned; "" on success.
        engine: Transformer Engine can be imported.
        args: Megatron's parsed flags.
        given: destinations of the flags that the user set.

    Raises:
        UsageError: the isolation that was asked for excludes one of the flags.
        DataError: this machine does not have it.
    """
    if batching == "padded":
        return Isolation(kind="single", reason="one conversation per sample")
    local = "transformer_impl" in given and args.transformer_impl == "local"
    if asked == "thd":
        if device == "cpu" or local:
            why = "--device cpu" if device == "cpu" else "--transformer-impl local"
            raise UsageError(
                f"--isolation thd needs Transformer Engine, which {why} does not use; use --isolation mask"
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
