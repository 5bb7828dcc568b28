"""The shape of a model from its Megatron checkpoint, for `--use-checkpoint-args`.

Megatron's own way with that flag forgets part of the shape (norm epsilon, query and key norms, rotary scaling), and
takes over dropout, whatever the user says. So the arguments in the checkpoint are read by Megatron, and those that
make the shape become flags like any others: complete, and compared with what the user says.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.mcore import compat
from sft_shards.trainer.model.hf_config import ModelShape

FLAGS = (
    "num-layers",
    "hidden-size",
    "ffn-hidden-size",
    "num-attention-heads",
    "group-query-attention",
    "num-query-groups",
    "kv-channels",
    "add-qkv-bias",
    "qk-layernorm",
    "disable-bias-linear",
    "normalization",
    "norm-epsilon",
    "apply-layernorm-1p",
    "swiglu",
    "squared-relu",
    "untie-embeddings-and-output-weights",
    "position-embedding-type",
    "rotary-base",
    "rotary-percent",
    "rotary-interleaved",
    "rotary-seq-len-interpolation-factor",
    "use-rope-scaling",
    "rope-scaling-factor",
    "num-experts",
    "moe-ffn-hidden-size",
    "moe-layer-freq",
    "moe-router-topk",
    "moe-router-score-function",
    "moe-router-pre-softmax",
    "moe-router-topk-scaling-factor",
    "moe-router-enable-expert-bias",
    "moe-shared-expert-intermediate-size",
)
"""Flags that make the shape."""
WITH_EXPERTS = ("moe-",)
WITH_GROUPS = ("num-query-groups",)


def read(parser: argparse.ArgumentParser, args: argparse.Namespace) -> ModelShape:
    """The shape of the model that `--load`, or else `--pretrained-checkpoint`, names.

    Raises:
        UsageError: neither is given, there is no checkpoint, or it does not say how it was made.
    """
    given = [(flag, getattr(args, flag, None)) for flag in ("load", "pretrained_checkpoint")]
    named = [(flag, folder) for flag, folder in given if folder]
    if not named:
        raise UsageError("--use-checkpoint-args needs --load DIR or --pretrained-checkpoint DIR")
    held = [(flag, folder) for flag, folder in named if (Path(folder) / "latest_checkpointed_iteration.txt").is_file()]
    if not held:
        raise UsageError(
            f"--{named[0][0].replace('_', '-')} {named[0][1]}: no checkpoint there (no "
            "latest_checkpointed_iteration.txt), and --use-checkpoint-args wants its shape; give --hf-config instead"
        )
    flag, folder = held[0]
    from megatron.training.checkpointing import load_args_from_checkpoint

    with compat.quiet():
        found = load_args_from_checkpoint(copy.copy(args), load_arg=flag)
    if not isinstance(found, tuple):
        raise UsageError(f"{folder}: this checkpoint does not say how it was made; give --hf-config instead")
    return shape(parser, found[1], str(folder))


def shape(parser: argparse.ArgumentParser, saved: argparse.Namespace, path: str) -> ModelShape:
    """The shape in a checkpoint's arguments, as `parser` spells its flags."""
    actions = parser._option_string_actions
    flags: dict[str, Any] = {}
    for name in FLAGS:
        action = actions.get(f"--{name}")
        if action is None or not hasattr(saved, action.dest):
            continue
        if name.startswith(WITH_EXPERTS) and not saved.num_experts:
            continue
        if name in WITH_GROUPS and not saved.group_query_attention:
            continue
        value = getattr(saved, action.dest)
        if action.nargs == 0:
            value = value == action.const
        flags[name] = str(value).replace(" ", "") if isinstance(value, list) else getattr(value, "name", value)
    return ModelShape(
        path=path,
        flags=flags,
        vocab_size=saved.padded_vocab_size,
        max_positions=saved.max_position_embeddings,
        window=None,
    )
