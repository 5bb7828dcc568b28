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

from argparse import Namespace
from dataclasses import dataclass, field

from sft_shards.formats.errors import DataError, UsageError

ISOLATIONS = ("auto", "thd", "mask")


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """What was chosen."""

    kind: str
    """`thd`, `mask`, or `single`: a sample holds one conversation, causal attention is enough."""
    reason: str
    flags: tuple[str, ...] = field(default=())
    """Megatron flags that go with it."""


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
