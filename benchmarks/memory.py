"""Memory of every recipe in configs/, by Megatron's own estimator, beside what its GPUs have.

    python benchmarks/memory.py [--json] [RECIPE.yaml ...]

No GPU is needed, and none is measured: each recipe is read as `sft-train` reads it, validated by Megatron for all of
its processes, and handed to `megatron.training.theoretical_memory_usage`. Where a recipe recomputes all layers, for
which the estimator has no formula, activations are its figure for one layer and the output, and the input of every
layer beside it (2 bytes a value). Logits are those of one chunk of --loss-chunk positions. With context parallelism a
GPU has its share of the positions, and the optimizer is spread over those ranks as well. What is not in any figure
stands in docs/recipes.md.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

from sft_shards.trainer import parallel_layout, yaml_config
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch import cpu, environment
from sft_shards.trainer.mcore import compat, cpu_device, flags
from sft_shards.trainer.model import hf_config, lora

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GPUS = {"mi300x": 192, "mi355x": 288}
"""Memory in GB (10^9 bytes)."""
WITHOUT_ENGINE = {"no-rope-fusion": True, "transformer-impl": "local"}
"""What Megatron wants Transformer Engine for already when it reads its flags; no matter for memory."""
LOGIT_BYTES = 8
"""Of one logit of a chunk in the backward pass: BF16 2, its softmax in FP32 4, its gradient in BF16 2."""
NAME = re.compile(r"(?P<model>.+)\.(?P<gpu>mi\d+x)(-(?P<nodes>\d+)n)?")


def recipes() -> list[Path]:
    """The recipes: `configs/MODEL.GPU.yaml` for one node of 8 GPUs, `configs/MODEL.GPU-4n.yaml` for four."""
    return sorted(path for path in CONFIGS.glob("*.yaml") if NAME.fullmatch(path.stem))


def world(path: Path) -> int:
    """GPUs that a recipe is for."""
    found = NAME.fullmatch(path.stem)
    assert found, path
    return 8 * int(found["nodes"] or 1)


def validated(path: Path) -> Any:
    """Megatron's validated arguments of a recipe, for all of its GPUs."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(world(path)))
    file = yaml_config.read(str(path))
    shape = hf_config.read(file.own["hf-config"])
    resolved = flags.resolve(
        compat.parser(), config=file.megatron, config_path=str(path), flags=(), forced=WITHOUT_ENGINE, shape=shape
    )
    parallel_layout.from_flags(resolved.args, world(path), epochs=True)
    extra = (
        "--train-iters=1000",
        "--tokenizer-type=NullTokenizer",
        f"--vocab-size={shape.vocab_size}",
        f"--max-position-embeddings={shape.max_positions}",
    )
    return compat.configure((*resolved.argv, *extra), {"padded_vocab_size": shape.vocab_size}).args


def loss_chunk(path: Path) -> int:
    """Trained positions whose logits a recipe holds at a time."""
    return int(yaml_config.read(str(path)).own.get("loss-chunk", Job.loss_chunk))


def adapters_of(path: Path) -> lora.Lora | None:
    """The adapters that a recipe trains; None: all weights."""
    file = yaml_config.read(str(path))
    own = {name.replace("-", "_"): value for name, value in file.own.items() if name.startswith("lora-")}
    shape = hf_config.read(file.own["hf-config"])
    return lora.parse(Job(shards=(), model="", **own), architecture=shape.architecture)


def estimate(path: Path) -> dict[str, Any]:
    """Bytes on the fullest GPU, by what they are for."""
    from megatron.training import theoretical_memory_usage as usage

    args = validated(path)
    ranks = args.context_parallel_size
    layout = f"TP {args.tensor_model_parallel_size} x EP {args.expert_model_parallel_size} x "
    layout += (f"CP {ranks} x " if ranks > 1 else "") + f"DP {args.data_parallel_size}"
    positions, chunk = args.seq_length * args.micro_batch_size, loss_chunk(path)
    args.seq_length //= ranks
    logits = min(chunk, args.seq_length * args.micro_batch_size) * args.padded_vocab_size * LOGIT_BYTES
    logits /= args.tensor_model_parallel_size
    batches = args.global_batch_size // (args.micro_batch_size * args.data_parallel_size)
    formula = usage.compute_activation_memory if args.sequence_parallel else usage.compute_activation_memory_without_sp
    args.data_parallel_size *= ranks  # of the optimizer
    rows, args.padded_vocab_size = args.padded_vocab_size, 0  # the logits of all positions at once are not held
    activations = formula(args, batches)
    if args.recompute_granularity == "full":
        one = copy.copy(args)
        one.num_layers = 1
        values = args.num_layers * args.seq_length * args.micro_batch_size * args.hidden_size
        shards = args.tensor_model_parallel_size if args.sequence_parallel else 1
        activations = formula(one, batches) + 2 * values / shards
    args.padded_vocab_size = rows
    weights = usage.compute_weight_and_optimizer_memory(args)
    if (adapters := adapters_of(path)) is not None:
        args.use_distributed_optimizer = False
        frozen = usage.compute_weight_and_optimizer_memory(args) / 18 * 2
        weights = frozen + 18 * lora.parameters(adapters, args, tensor=args.tensor_model_parallel_size)
    found = NAME.fullmatch(path.stem)
    assert found
    return {
        "recipe": path.stem,
        "gpus": world(path),
        "layout": layout,
        "positions": positions,
        "recompute": args.recompute_granularity or "none",
        "weights_gb": round(weights / 1e9, 1),
        "activations_gb": round(activations / 1e9, 1),
        "logits_gb": round(logits / 1e9, 1),
        "gpu_gb": GPUS[found["gpu"]],
        "share": round((weights + activations + logits) / 1e9 / GPUS[found["gpu"]], 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The estimates as a table in Markdown."""
    lines = [
        "| recipe | layout | positions | recomputed | weights, optimizer | activations | logits | of the GPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| `{row['recipe']}` | {row['layout']} | {row['positions']:,} | {row['recompute']} | "
            f"{row['weights_gb']} GB | {row['activations_gb']} GB | "
            f"{row['logits_gb']} GB | {row['share']:.0%} of {row['gpu_gb']} GB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Estimate what is asked for, each in a process of its own, because Megatron keeps its arguments for good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    environment.apply(environment.plan(cpu.wanted(1, 1), {}), os.environ)
    with compat.quiet():
        cpu_device.install()
        compat.parser()
        importlib.import_module("megatron.training.theoretical_memory_usage")
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.map(estimate, asked.recipes or recipes(), chunksize=1)
    print(json.dumps(rows) if asked.json else table(rows))


if __name__ == "__main__":
    main()
