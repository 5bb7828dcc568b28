"""Where a run's weights come from: a checkpoint, a Hugging Face folder, or chance, which has to be asked for.

    --load with a checkpoint in it  >  --pretrained-checkpoint  or  --model  >  --random-weights

`choose` decides before any process builds a model, so that `--dry-run` says the same. `providing` puts the decision
into effect inside Megatron's model provider.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.model import adapter_resume, weights
from sft_shards.trainer.model.folder import ModelFolder
from sft_shards.trainer.model.hf_config import ModelShape
from sft_shards.trainer.model.lora import Lora
from sft_shards.trainer.model.tensor_map import TensorMap

TRACKER = "latest_checkpointed_iteration.txt"
"""Megatron's file beside checkpoints that names the last one."""
SHARDED = ("use_megatron_fsdp", "use_custom_fsdp", "use_torch_fsdp2")
FP8 = ("fp8_param_gather", "fp8_param", "fp4_param_gather", "fp4_param")
INTERLEAVED = ("moe_mlp_glu_interleave_size", "moe_shared_expert_glu_interleave_size")


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the weights of a run come from."""

    summary: str
    """The decision in words, for the summary."""
    shape: ModelShape | None = None
    """From a config.json or a checkpoint; None: Megatron's flags give it."""
    folder: ModelFolder | None = None
    """What to import, checked; None: nothing."""
    lora: Lora | None = None
    """Adapters to train on weights that stay as they are; None: all weights are trained."""
    rows: int
    """Rows of the vocabulary that stand for ids; those behind them take no part in the softmax."""


def choose(
    *,
    model: str | None,
    random: bool,
    args: Namespace,
    shape: ModelShape | None,
    rows: int,
    lora: Lora | None = None,
) -> Start:
    """Decide where the weights come from, and check that they are there.

    Args:
        model: --model, a folder.
        random: --random-weights.
        args: Megatron's flags as parsed.
        shape, rows, lora: as in `Start`.

    Raises:
        UsageError: nothing says where from, two things do, or what is named is not there.
        DataError: the folder does not hold the model that its config.json describes.
    """
    load, pretrained = args.load, getattr(args, "pretrained_checkpoint", None)
    if model is not None:
        _refuse(model, random=random, pretrained=pretrained, args=args)
    common: dict[str, Any] = {"shape": shape, "rows": rows, "lora": lora}
    resumed = bool(load and has_checkpoint(load))
    if resumed:
        adapter_resume.check(load, lora, step=getattr(args, "ckpt_step", None))
    save = getattr(args, "save", None)
    if save and has_checkpoint(save) and not (resumed and Path(save).resolve() == Path(load).resolve()):
        adapter_resume.check_save(save, lora)
    if resumed and lora is None:
        start = "its weights" if getattr(args, "finetune", False) else "resumed"
        return Start(summary=f"weights: checkpoint in {load} ({start})", **common)
    if pretrained:
        if random:
            raise UsageError("--random-weights and --pretrained-checkpoint both say the start; leave one of them out")
        if not has_checkpoint(pretrained):
            raise UsageError(f"--pretrained-checkpoint {pretrained}: no checkpoint there (no {TRACKER})")
        adapter_resume.check(pretrained, None, step=None, option="--pretrained-checkpoint")
        return Start(summary=f"weights: pretrained checkpoint in {pretrained}", **common)
    if model is not None:
        assert shape is not None
        folder = ModelFolder.open(model)
        folder.check(TensorMap(shape))
        size = f"{len(folder.tensors):,} tensors, {folder.bytes / 1e9:.2f} GB, {', '.join(folder.dtypes)}"
        kept = "" if not args.bf16 or folder.dtypes == ("BF16",) else "; rounded to BF16, as the run's weights are"
        adapters = f"; adapters: checkpoint in {load}" if resumed else ""
        return Start(summary=f"weights: {model} ({size}{kept}){adapters}", folder=folder, **common)
    if random:
        return Start(summary="weights: RANDOM (--random-weights)", **common)
    if load:
        raise UsageError(
            f"--load {load}: no checkpoint there (no {TRACKER}), and nothing else says where the weights come from; "
            "add --model DIR, or --random-weights to start from random ones"
        )
    raise UsageError(
        "nothing says where the weights come from: give --model DIR (a Hugging Face model), --load DIR after -- (a "
        "checkpoint), or --random-weights"
    )


def has_checkpoint(folder: str) -> bool:
    """Whether Megatron finds a checkpoint there."""
    return (Path(folder) / TRACKER).is_file()


def _refuse(model: str, *, random: bool, pretrained: str | None, args: Namespace) -> None:
    """UsageError for what cannot go together with --model."""
    if random:
        raise UsageError("--model and --random-weights both say the start; --hf-config gives the model shape alone")
    if pretrained:
        raise UsageError("--model and --pretrained-checkpoint both say the start; leave one of them out")
    reasons = {
        "sharded parameters hold no whole rows when the model is built; use --use-distributed-optimizer": SHARDED,
        "weights kept in FP8 or FP4 are not imported; leave it out (FP8 computation is fine)": FP8,
        "gate and up in turns are not how the files hold them; leave it out": INTERLEAVED,
        "weights are read when the model is built, and then it has no memory yet; leave it out": (
            "init_model_with_meta_device",
        ),
    }
    for reason, names in reasons.items():
        for name in names:
            if getattr(args, name, None):
                raise UsageError(f"--{name.replace('_', '-')} does not go with --model: {reason}")
    if not getattr(args, "perform_initialization", True):
        raise UsageError(
            "--no-initialization does not go with --model: before Megatron 0.18 weights that were not initialised are "
            "missing from the gradient norm of tensor-parallel ranks; leave it out"
        )


def providing(provider: Callable[..., Any], start: Start) -> Callable[..., Any]:
    """A model provider whose models have the weights that the start says.

    Whatever comes after it (mixed precision, data parallelism, the optimizer's main parameters) copies them.
    """

    @functools.wraps(provider)
    def provide(*args: Any, **kwargs: Any) -> Any:
        model = provider(*args, **kwargs)
        if start.folder is not None:
            assert start.shape is not None
            weights.fill(model, start.folder, TensorMap(start.shape))
        if start.lora is not None:
            from megatron.training import get_args

            from sft_shards.trainer.model import adapter_checkpoint, adapters

            adapters.attach(model, start.lora, seed=get_args().seed)
            adapter_checkpoint.save_adapters_only(model)
        if getattr(model, "post_process", True):
            hide_padding(model, start.rows)
        return model

    return provide


def hide_padding(model: Any, rows: int) -> None:
    """Keep the padding of the vocabulary out of the softmax.

    A row of zeros has a logit of 0 and a share of the probability: padding 131 rows to 256 moved a loss from 5.884 to
    6.246. Their logits become the lowest finite number, whose exponential is 0 on every tensor-parallel rank.

    Example: 5 rows padded to 6, TP 2: rank 0 holds rows 0 to 3 and hides none, rank 1 rows 3 to 6 and hides one.

    Args:
        rows: rows of the whole vocabulary that have a meaning.
    """
    import torch
    from megatron.core import parallel_state

    layer = getattr(model, "output_layer", None)
    if layer is None:
        return
    local, whole = layer.output_size_per_partition, layer.output_size
    first = parallel_state.get_tensor_model_parallel_rank() * local
    if rows >= whole:
        return
    valid = {local: min(max(rows - first, 0), local), whole: rows}  # gathered over ranks, all rows are there

    def hide(module: Any, inputs: Any, output: Any) -> None:
        logits = output[0]
        width = logits.shape[-1]
        assert width in valid, f"{width} logits, neither {local} nor {whole}"
        if valid[width] < width:
            logits[..., valid[width] :] = torch.finfo(logits.dtype).min

    layer.register_forward_hook(hide)
