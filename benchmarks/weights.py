"""Import and export of a model of more than a gigabyte, at TP 1, TP 2 and PP 2, against a plain copy of its files.

    PYTHONPATH=tests/support python benchmarks/weights.py [--layers N] [--folder DIR]

A Llama of 1.2 GB in BF16 with random weights is written to the folder. For each layout processes on this CPU build
Megatron's model, fill it by `--model`, and save a torch_dist checkpoint without optimizer; then it is exported. What is
timed is the filling alone (the slowest rank), the export alone, and a copy of the folder's files; files are in the page
cache in each case, and written ones are synchronised. Memory is the peak of a process less what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked_ranks
from toy_runs import VOCABULARY, random_pairs, write_shards
from warm_process import import_megatron

from sft_shards.trainer import worker
from sft_shards.trainer.job import Job
from sft_shards.trainer.mcore import compat
from sft_shards.trainer.model import export, provider, weights
from sft_shards.trainer.model.start import providing

LAYOUTS = {
    "TP 1": (1, ()),
    "TP 2": (2, ("--tensor-model-parallel-size=2",)),
    "PP 2": (2, ("--pipeline-model-parallel-size=2",)),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--folder", default=None)
    asked = parser.parse_args()
    import_megatron()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        root = Path(name)
        model = make(root / "model", asked.layers)
        shards = write_shards(root / "shards", {"train": random_pairs(8, seed=1)})
        size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        print(f"{size / 1e9:.2f} GB, {os.cpu_count()} CPUs")
        seconds, _ = forked(lambda: copy(model, root / "copy"), root)
        print(f"{'plain copy':12} {size / 1e9 / seconds:6.2f} GB/s")
        for layout, (nproc, flags) in LAYOUTS.items():
            measured = fill(root, model, shards, nproc, flags)
            seconds = max(each["seconds"] for each in measured)
            parameters = max(each["bytes"] for each in measured)
            memory = max(each["memory"] for each in measured)
            print(
                f"{layout + ' import':12} {size / 1e9 / seconds:6.2f} GB/s   peak {memory / 1e9:.2f} GB on top of "
                f"{parameters / 1e9:.2f} GB of parameters, mapped pages counted"
            )
            seconds, memory = forked(lambda: export.export(root / "out", root / "exported"), root)
            same = (root / "exported/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
            print(
                f"{layout + ' export':12} {size / 1e9 / seconds:6.2f} GB/s   peak {memory / 1e9:.2f} GB, "
                f"same bytes: {same}"
            )
            shutil.rmtree(root / "out")
            shutil.rmtree(root / "exported")


def make(folder: Path, layers: int) -> Path:
    """The model, one tensor after the other, in one file."""
    import torch

    from sft_shards.trainer.model import hf_config
    from sft_shards.trainer.model.safetensors_writer import SafetensorsWriter
    from sft_shards.trainer.model.tensor_map import TensorMap

    folder.mkdir()
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": layers, "hidden_size": 2048,
        "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    assert len(VOCABULARY) < config["vocab_size"]
    shapes = TensorMap(hf_config.read(str(folder))).hf_shapes()
    with SafetensorsWriter(folder, shapes, torch.bfloat16) as writer:
        for name, shape in shapes.items():
            writer.write(name, 0, torch.randn(shape, dtype=torch.float32) * 0.02)
    return folder


def copy(source: Path, target: Path) -> None:
    """Copy the files by read and write, and synchronise them."""
    target.mkdir()
    for file in source.iterdir():
        with file.open("rb") as read, (target / file.name).open("wb") as written:
            while piece := read.read(8 << 20):
                written.write(piece)
            written.flush()
            os.fsync(written.fileno())


def forked(call: Callable[[], object], folder: Path) -> tuple[float, float]:
    """Seconds and bytes above the start of a call in a fork."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            before, began = peak(), time.perf_counter()
            call()
            (folder / "measured").write_text(json.dumps([time.perf_counter() - began, peak() - before]))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    seconds, memory = json.loads((folder / "measured").read_text())
    return seconds, memory


def peak() -> float:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def fill(root: Path, model: Path, shards: Path, nproc: int, flags: tuple[str, ...]) -> list[dict[str, float]]:
    """Build, fill and save in processes of a layout; what each rank measured."""
    words = ("--seq-length=64", "--train-iters=1", "--lr=1e-3", "--eval-iters=0", "--bf16", "--no-save-optim", *flags)
    words = (*words, "--no-save-rng", f"--save={root / 'out'}")
    job = {"shards": [str(shards)], "device": "cpu", "model": str(model), "flags": words}
    run = worker.main
    worker.main = lambda: run(lambda job: measure(job, root))
    codes, output = forked_ranks.run(job, nproc, None)
    worker.main = run
    assert not any(codes), output[-4000:]
    return [json.loads((root / f"rank-{rank}.json").read_text()) for rank in range(nproc)]


def measure(job: Job, root: Path) -> None:
    """What `worker.run` does up to the model, with the filling timed, and a checkpoint of it."""
    configuration, sets, start = worker.prepare(job)
    from megatron.core.enums import ModelType
    from megatron.training.checkpointing import save_checkpoint
    from megatron.training.initialize import initialize_megatron
    from megatron.training.training import get_model

    from sft_shards.trainer.model import record

    compat.skip_compiling()
    with compat.quiet():
        initialize_megatron()
    found: dict[str, float] = {}
    plain = weights.fill

    def timed(model: Any, *args: Any) -> None:
        before, began = peak(), time.perf_counter()
        plain(model, *args)
        found["seconds"] = time.perf_counter() - began
        found["memory"] = peak() - before
        found["bytes"] = sum(each.nbytes for each in model.parameters())

    weights.fill = timed
    with compat.quiet():
        models = get_model(providing(provider.model_provider, start), ModelType.encoder_or_decoder, wrap_with_ddp=False)
    rank = int(os.environ["RANK"])
    (root / f"rank-{rank}.json").write_text(json.dumps(found))
    if not rank:
        shards = sets.stage.setup.directories[0][2]
        record.write(
            root / "out",
            shape=start.shape,
            base=job.model,
            shards=job.shards,
            manifest=shards.manifest,
            directory=shards.path,
        )
    with compat.quiet():
        save_checkpoint(1, models, None, None, 0)
    assert configuration.args.padded_vocab_size == 32000


if __name__ == "__main__":
    main()
