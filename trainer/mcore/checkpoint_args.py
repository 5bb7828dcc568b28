"""The model shape in a Megatron checkpoint, for `--use-checkpoint-args`.

Megatron's own implementation of that flag loses part of the model shape (norm epsilon, query and key norms, rotary
scaling), overrides the user's dropout, and unpickles the checkpoint, which can run any code. So the arguments are read
here without that (see `saved_arguments`). Those that describe the model shape become flags like any others, and are
compared with what the user says.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.mcore import saved_arguments
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
"""Flags that describe the model shape."""
PLAIN = (int, float, str, type(None))
"""Types of the values of these flags; a list holds them too."""
NEEDED = ("num_layers", "hidden_size", "padded_vocab_size", "max_position_embeddings")
"""Arguments without which there is no model shape."""
WITH_EXPERTS = ("moe-",)
"""Beginnings of flags that mean something only with --num-experts."""
WITH_GROUPS = ("num-query-groups",)
"""Flags that mean something only with --group-query-attention."""


def read(parser: argparse.ArgumentParser, args: argparse.Namespace) -> ModelShape:
    """Read the model shape from the checkpoint at --load, or else at --pretrained-checkpoint.

    Raises:
        UsageError: neither is given, there is no checkpoint, or it holds no arguments.
        DataError: the checkpoint is damaged, or an argument is no plain value.
    """
    given = [(flag, getattr(args, flag, None)) for flag in ("load", "pretrained_checkpoint")]
    named = [(flag, folder) for flag, folder in given if folder]
    if not named:
        raise UsageError("--use-checkpoint-args needs --load DIR or --pretrained-checkpoint DIR")
    held = [(flag, folder) for flag, folder in named if (Path(folder) / "latest_checkpointed_iteration.txt").is_file()]
    if not held:
        raise UsageError(
            f"--{named[0][0].replace('_', '-')} {named[0][1]}: no checkpoint there (no "
            "latest_checkpointed_iteration.txt), and --use-checkpoint-args needs its shape; give --hf-config instead"
        )
    _, folder = held[0]
    saved = saved_arguments.read(Path(folder), getattr(args, "ckpt_step", None))
    missing = [name for name in NEEDED if type(getattr(saved, name, None)) is not int]
    if missing:
        raise UsageError(
            f"{folder}: this checkpoint's arguments give no number for {', '.join(missing)}; give --hf-config instead"
        )
    return shape(parser, saved, str(folder))


def shape(parser: argparse.ArgumentParser, saved: argparse.Namespace, path: str) -> ModelShape:
    """Return the model shape that a checkpoint's arguments describe, by the names of `parser`'s flags."""
    actions = parser._option_string_actions
    flags: dict[str, Any] = {}
    for name in FLAGS:
        action = actions.get(f"--{name}")
        if action is None or not hasattr(saved, action.dest):
            continue
        if name.startswith(WITH_EXPERTS) and not getattr(saved, "num_experts", None):
            continue
        if name in WITH_GROUPS and not getattr(saved, "group_query_attention", False):
            continue
        value = getattr(saved, action.dest)
        if not all(isinstance(one, PLAIN) for one in (value if isinstance(value, list) else [value])):
            raise DataError(f"{path}: the checkpoint's --{name} is no plain value; give --hf-config instead")
        if action.nargs == 0:
            value = value == action.const
        flags[name] = str(value).replace(" ", "") if isinstance(value, list) else value
    ids = getattr(saved, "vocab_size", None)
    return ModelShape(
        path=path,
        flags=flags,
        vocab_size=saved.padded_vocab_size,
        ids=ids if isinstance(ids, int) else None,
        max_positions=saved.max_position_embeddings,
        window=None,
    )
