"""What a training step costs on this machine: every kind of attention, logits everywhere or where they are trained.

    python benchmarks/step.py [--device cpu] [--shape small] [--shards DIR] [--seq-length 2048] [--micro-batches 2]

Each row is a process of its own with the same random weights: forward and backward of the same conversations, without
optimizer and communication. The first row is what Megatron's own layers do, a mask of all positions by all positions.
Then come ours, the last of them with one conversation in a sample, as data sets have that do not pack; and the samples
of Megatron-LM's SFT data set with its own layers and loss (`megatron_sft`). Memory is what a step takes above the
weights, gradients included; logits are the most that the output layer gave at a time. The share of peak counts the
multiplications that are needed: logits of trained positions, attention within conversations. docs/gpu.md has room for
the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import megatron_sft
from startup import make

from sft_shards.trainer import worker
from sft_shards.trainer.isolation.kernels import KINDS, TE, missing
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch import cpu, environment, gpus, launcher
from sft_shards.trainer.mcore import compat
from sft_shards.trainer.model import provider
from sft_shards.trainer.model.start import providing
from sft_shards.trainer.stage import cost_model

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"num-layers": 1, "hidden-size": 64, "ffn-hidden-size": 96, "num-attention-heads": 2, "vocab-size": 50048},
    "small": {
        "num-layers": 2, "hidden-size": 256, "ffn-hidden-size": 768, "num-attention-heads": 4, "vocab-size": 65536,
    },
    "1b": {
        "num-layers": 16, "hidden-size": 2048, "ffn-hidden-size": 8192, "num-attention-heads": 32,
        "vocab-size": 128256,
    },
}  # fmt: skip
"""Models; every second to eighth head of queries shares keys and values."""
PEAKS = {"MI300X": 1307e12, "MI325X": 1307e12, "MI355X": 2500e12, "H100": 989e12, "H200": 989e12}
"""Dense BF16 operations a second, by a part of the GPU's name, as the makers say."""
DENSE = "mask of all positions"
PEER = "Megatron-LM's SFT data set"
OTHERS = (DENSE, PEER)
"""Ways that are not ours: attention is Megatron's, in its own layers or in those of Transformer Engine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One way of doing the step."""

    attention: str
    """One of `KINDS`, or of `OTHERS`."""
    selected: bool
    """Whether logits are computed for trained positions only."""
    batching: str = "packed"


def rows(device: str) -> list[Row]:
    """The ways that this machine has."""
    kinds = ["sdpa"] if device == "cpu" else [kind for kind in KINDS if not missing(kind)]
    packed = [Row(attention=kind, selected=selected) for kind in kinds for selected in (False, True)]
    alone = [Row(attention=kinds[0], selected=selected, batching="padded") for selected in (False, True)]
    theirs = [Row(attention=PEER, selected=False, batching=batching) for batching in ("packed", "padded")]
    return [Row(attention=DENSE, selected=False), *packed, *alone, *theirs]


def flags(options: argparse.Namespace) -> tuple[str, ...]:
    """Megatron's flags of every row."""
    shape = SHAPES[options.shape]
    groups = max(1, shape["num-attention-heads"] // 4)
    found = [f"--{name}={value}" for name, value in shape.items()]
    found += ["--group-query-attention", f"--num-query-groups={groups}", f"--seq-length={options.seq_length}"]
    found += ["--swiglu", "--normalization=RMSNorm", "--disable-bias-linear", "--position-embedding-type=rope"]
    found += ["--untie-embeddings-and-output-weights", "--lr=0", "--train-iters=1", "--no-masked-softmax-fusion"]
    return (*found, *(["--bf16"] if options.device == "gpu" else []))


def measure(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Do the step in this process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    variables = cpu.wanted(options.threads, 1) if options.device == "cpu" else {}
    environment.apply(environment.plan({**variables, **launcher.WARNINGS}, {}), os.environ)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost", MASTER_PORT=str(port))
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    engine = row.attention == PEER and options.device == "gpu" and not missing(TE)
    if row.attention == PEER and row.batching == "packed" and not engine:
        raise SystemExit(megatron_sft.NEEDS_ENGINE)
    isolation = TE if engine else "sdpa" if row.attention in OTHERS else row.attention
    job = Job(
        shards=(str(options.shards),),
        device=options.device,
        random_weights=True,
        isolation=isolation,
        batching=row.batching,
        cache_dir=str(Path(options.shards).parent / "cache"),
        flags=flags(options),
    )
    if row.attention in OTHERS:
        provider.with_attention = lambda spec, kernel: spec
    configuration, data_sets, start = worker.prepare(job)
    import torch
    from megatron.core.enums import ModelType
    from megatron.training.initialize import initialize_megatron
    from megatron.training.training import get_model
    from torch.utils.data import default_collate

    compat.skip_compiling()
    initialize_megatron()
    stage, on_gpu = data_sets.stage, options.device == "gpu"
    (model,) = get_model(providing(stage.model_provider(), start), ModelType.encoder_or_decoder, wrap_with_ddp=False)
    step = stage.forward_step()
    step = step if row.selected else dataclasses.replace(step, loss_chunk=None)
    reader = stage.reader(stage.train.sources[0].plan, 0)
    wanted = numbers(stage, row, options.micro_batches)
    if row.attention == PEER:
        lines = [reader.conversations(number) for number in wanted]
        vocabulary = stage.setup.directories[0][2].manifest.tokenizer.vocab_size
        made = megatron_sft.samples(lines, seq_length=options.seq_length, vocab_size=vocabulary)
    else:
        made = [reader[number] for number in wanted]
    batches = [default_collate([sample]) for sample in made]

    logits = [0]
    (output_layer,) = (module for name, module in model.named_modules() if name.endswith("output_layer"))
    output_layer.register_forward_hook(lambda _, __, output: logits.append(output[0].nbytes))

    def once(batch: dict[str, Any]) -> float:
        if row.attention == PEER:
            loss = megatron_sft.step(batch, model, engine=engine)
        else:
            output, loss_of = dense(step, batch, model) if row.attention == DENSE else step(iter([batch]), model)
            loss, _, _ = loss_of(output)
        loss.backward()
        return float(loss.detach())

    def wait() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    before = torch.cuda.memory_allocated() if on_gpu else resident()
    once(batches[0])
    times, losses = [], 0.0
    for _ in range(options.steps):
        began = wait()
        losses = sum(map(once, batches))
        times.append(wait() - began)
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trained = sum(int(batch["loss_mask"].sum()) for batch in batches)
    name = torch.cuda.get_device_name() if on_gpu else ""
    top = next((value for part, value in PEAKS.items() if part in name), None)
    return {
        "seconds": min(times),
        "samples": len(batches),
        "trained": trained,
        "loss": losses / trained,
        "memory": peak - before,
        "logits": max(logits),
        "share": needed(configuration.args, batches) / min(times) / top if top else None,
        "machine": name or "CPU",
    }


def numbers(stage: Any, row: Row, micro_batches: int) -> list[int]:
    """The samples of a row: the first packs of the plan, or the same conversations one by one."""
    plan = stage.train.sources[0].plan
    if row.batching == "packed":
        return list(range(min(micro_batches, len(plan))))
    from sft_shards.trainer.data.pack_plan import make_plan

    setup = stage.setup
    packed = make_plan(
        plan.split,
        seq_length=setup.layout.seq_length,
        overlong=setup.job.overlong,
        batching="packed",
        every_token=False,
        seed=setup.args.seed,
        cache=setup.cache,
    )
    wanted = set(packed.packs.items[: packed.packs.bounds[min(micro_batches, len(packed))]].tolist())
    return [number for number, item in enumerate(plan.packs.items.tolist()) if item in wanted]


def dense(step: Any, batch: dict[str, Any], model: Any) -> Any:
    """The step with a mask of all positions by all positions, as Megatron's own layers take it."""
    from functools import partial

    from sft_shards.trainer.mcore.loss import loss_func

    made = step.get_batch(iter([batch]))
    conversations = (made["position_ids"][0] == 0).cumsum(0)
    hidden = conversations[:, None] != conversations
    hidden |= hidden.new_ones(hidden.shape).triu(1)
    output = model(made["tokens"], made["position_ids"], hidden[None, None], labels=made["labels"])
    return output, partial(loss_func, made["loss_mask"])


def needed(args: Any, batches: list[dict[str, Any]]) -> float:
    """Operations of forward and backward that are needed: two for each multiplication, three times."""
    import torch

    model, total = cost_model(args), 0.0
    for batch in batches:
        starts = torch.nonzero(batch["position_ids"].flatten() == 0).flatten().tolist()
        bounds = [*starts, batch["position_ids"].numel()]
        lengths = [end - begin for begin, end in itertools.pairwise(bounds)]
        layer = model.linear * bounds[-1] + model.quadratic * sum(length**2 for length in lengths) / 2
        logits = int(batch["loss_mask"].sum()) * args.hidden_size * args.padded_vocab_size
        total += 6 * (args.num_layers * layer + logits)
    return total


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def table(found: list[tuple[Row, dict[str, Any]]]) -> str:
    """The rows as a table in Markdown; the first one that ran is 1."""
    first = next(each for _, each in found if "seconds" in each)
    rate = first["trained"] / first["seconds"]
    lines = [
        "| attention | logits of | in a sample | seconds | trained tokens/s | ratio | memory | logits | of peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row, each in found:
        logits = "trained positions" if row.selected else "all positions"
        content = "packed" if row.batching == "packed" else "one conversation"
        if "seconds" not in each:
            lines.append(f"| {row.attention} | {logits} | {content} | {each['failed']} | | | | | |")
            continue
        speed = each["trained"] / each["seconds"]
        share = f"{each['share']:.0%}" if each["share"] else ""
        lines.append(
            f"| {row.attention} | {logits} | {content} | {each['seconds']:.2f} | {speed:,.0f} | {speed / rate:.2f} | "
            f"{each['memory'] / 1e9:.2f} GB | {each['logits'] / 1e9:.3f} GB | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every row in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu" if gpus.count() else "cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), help="(default: 1b on a GPU, small on the CPU)")
    parser.add_argument("--shards", type=Path, help="a shard directory (default: random ids, a third of them trained)")
    parser.add_argument("--seq-length", type=int, help="(default: 8192 on a GPU, 2048 on the CPU)")
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="cpu: threads of torch")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_gpu = options.device == "gpu"
    options.shape = options.shape or ("1b" if on_gpu else "small")
    options.seq_length = options.seq_length or (8192 if on_gpu else 2048)
    if options.row:
        print(json.dumps(measure(Row(**json.loads(options.row)), options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.shards is None:
            options.shards = Path(folder) / "shards"
            make(options.shards, 200, options.seq_length / 9, 1, options.seq_length, thirds=1)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if value is not None]
        found = []
        for row in rows(options.device):
            command = [sys.executable, "-W", "ignore", __file__, *words, "--row", json.dumps(dataclasses.asdict(row))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            reason = (done.stderr.strip().splitlines() or ["no reason"])[-1][:100]
            made = {"failed": reason} if done.returncode else json.loads(done.stdout.splitlines()[-1])
            print(f"{row.attention}, {row.batching}: {made}", file=sys.stderr)
            found.append((row, made))
    ran = [each for _, each in found if "seconds" in each]
    if not ran:
        raise SystemExit(f"no row ran: {found[0][1]['failed']}")
    whole = ran[0]["trained"]
    apart = max(abs(each["loss"] / ran[0]["loss"] - 1) for each in ran if each["trained"] == whole)
    print(f"{ran[0]['machine']}, {options.shape} model, {options.seq_length:,} positions; losses within {apart:.0e}\n")
    print(table(found))
    for row, each in found:
        if each.get("trained", whole) != whole:
            print(f"\n{row.attention}, {row.batching}: {each['trained']:,} of {whole:,} trained tokens fit")


if __name__ == "__main__":
    main()
