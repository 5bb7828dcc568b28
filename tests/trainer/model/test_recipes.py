"""Every recipe in configs/: read, validated by Megatron at its full size, and trained at a reduced one on the CPU.

What is reduced is the model's width, depth and vocabulary, the length of a sample, and each of TP and EP to 2; the
architecture and every other flag stay.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_runs import Run, losses, random_pairs, run_forked, write_shards

from sft_shards.trainer import yaml_config
from sft_shards.trainer.model import hf_config

ROOT = Path(__file__).parents[3]
RECIPES = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem != "demo-cpu")
MODELS = ("llama3.1-8b", "llama3.3-70b", "qwen2.5-7b", "qwen3-8b", "qwen3-30b-a3b")
REDUCED = {
    "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "vocab_size": 128, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
}  # fmt: skip


@pytest.mark.unit
def test_there_is_one_for_each_model_and_gpu() -> None:
    names = {path.stem for path in RECIPES}
    assert {f"{model}.{gpu}" for model in MODELS for gpu in ("mi300x", "mi355x")} < names
    assert {f"llama3.1-8b-128k.{gpu}" for gpu in ("mi300x", "mi355x")} < names
    assert {f"llama3.3-70b.mi300x-{nodes}n" for nodes in (2, 4)} | {"llama3.1-8b.mi300x-4n"} < names


@pytest.mark.unit
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_where_its_numbers_come_from_and_how_it_is_run(path: Path) -> None:
    text = path.read_text()
    assert "Primus v26.5" in text
    assert f"examples/megatron/configs/{'MI300X' if 'mi300x' in path.stem else 'MI355X'}/" in text
    assert f"--config configs/{path.name} " in text
    assert "Not run on an AMD GPU" in text
    assert (
        yaml.safe_load(text)["hf-config"]
        == f"models/{path.stem.split('.mi')[0].removesuffix('-lora').removesuffix('-128k')}.json"
    )
    assert yaml_config.read(str(path)).megatron["bf16"] is True


@pytest.mark.megatron
def test_megatron_takes_them_at_full_size_and_they_fit(tmp_path: Path) -> None:
    """Parsed and validated for all of their processes; what is estimated is what docs/recipes.md shows."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/memory.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["recipe"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {path.stem for path in RECIPES}
    shown = (ROOT / "docs/recipes.md").read_text()
    for name, row in rows.items():
        assert row["share"] < 0.9, name
        line = next(line for line in shown.splitlines() if line.startswith(f"| `{name}` |"))
        sizes = [f"{row[name]} GB" for name in ("weights_gb", "activations_gb", "logits_gb")]
        for cell in (row["layout"], *sizes, f"{row['share']:.0%} of"):
            assert f"| {cell}" in line, name
    # A chunk of 4,096 positions by 128,256 ids, 8 bytes each, whatever the length of a sample
    assert rows["llama3.1-8b-128k.mi300x"]["logits_gb"] == rows["llama3.1-8b.mi300x"]["logits_gb"] == 4.2
    assert rows["llama3.1-8b-128k.mi300x"]["positions"] == 131072
    assert rows["llama3.1-8b-128k.mi300x"]["weights_gb"] == rows["llama3.1-8b.mi300x"]["weights_gb"], "CP shards it too"
    # 8.03 billion parameters: 2 + 4 bytes each for weights and gradients, 12 over 8 ranks for the optimizer
    assert rows["llama3.1-8b.mi300x"]["weights_gb"] == pytest.approx(8.03 * 7.5, abs=0.1)
    # 70.55 billion frozen, 2 bytes each over 4 ranks; 207 million in adapters, of which a rank holds half
    assert rows["llama3.3-70b-lora.mi300x"]["weights_gb"] == pytest.approx(70.55 / 4 * 2 + 0.207 * 18 * 0.5, abs=0.2)
    # 30.5 billion: 1.54 of them (attention, embeddings, routers) on every GPU, the experts an eighth on each, once
    assert rows["qwen3-30b-a3b.mi300x"]["weights_gb"] == pytest.approx(1.54 * 7.5 + 28.99 / 8 * 18, abs=0.2)


def reduced(folder: Path, path: Path) -> Run:
    file = yaml_config.read(str(path))
    shape = json.loads(Path(file.own["hf-config"]).read_text())
    small = {key: value for key, value in REDUCED.items() if key in shape or key == "head_dim"}
    target = folder / f"{path.stem}.json"
    target.write_text(json.dumps({**shape, **small}))
    parallel = {name: min(2, value) for name, value in file.megatron.items() if name.endswith("-parallel-size")}
    flags = ["--seq-length=48", "--global-batch-size=4", "--train-iters=2", "--eval-iters=0"]
    adapters = {name.replace("-", "_"): value for name, value in file.own.items() if name.startswith("lora-")}
    start = {"model": str(untrained(target)), **adapters} if adapters else {"hf_config": str(target)}
    return Run(
        shards=[],
        flags=[*flags, *(f"--{name}={value}" for name, value in parallel.items())],
        nproc=2 if 2 in parallel.values() or path.stem.endswith("n") else 1,
        options={"config": file.megatron, "config_path": str(path), **start},
    )


def untrained(config: Path) -> Path:
    """A model folder of random weights, for adapters."""
    import transformers

    folder = config.with_suffix("")
    values = json.loads(config.read_text())
    kind = getattr(transformers, values["architectures"][0])
    kind(kind.config_class(**values)).save_pretrained(folder)
    return folder


@pytest.mark.megatron
def test_they_train_at_a_reduced_size(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(12, seed=1)})
    runs = [reduced(tmp_path, path) for path in RECIPES]
    for run in runs:
        run.shards = [shards]
    assert {run.nproc for run in runs} == {1, 2}
    for path, output in zip(RECIPES, run_forked(tmp_path, runs), strict=True):
        assert sorted(losses(output)) == [1, 2], path.stem
        assert "model vocabulary: 128 rows for 120 ids" in output
        assert all(3 < loss < 7 for loss in losses(output).values()), "untrained: near ln 128"


@pytest.mark.megatron
def test_a_base_checkpoint_starts_a_run_and_not_its_second_part(tmp_path: Path) -> None:
    """The call that each recipe shows: --pretrained-checkpoint with --save and --load of one folder."""
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(12, seed=1)})
    (path,) = (path for path in RECIPES if path.stem == "llama3.1-8b.mi300x")
    base, out = tmp_path / "base", tmp_path / "out"
    first = reduced(tmp_path, path)
    common = [*first.flags, "--lr-decay-style=constant", "--lr-warmup-fraction=0"]
    tuned = [*common, f"--pretrained-checkpoint={base}", f"--save={out}", f"--load={out}"]
    calls = [
        [*common, "--lr=0.01", f"--save={base}"],
        tuned,
        [*tuned, "--train-iters=3", "--override-opt-param-scheduler"],
    ]
    starts = ({}, {"random_weights": False}, {"random_weights": False})
    runs = [
        Run(shards=[shards], flags=flags, options={**first.options, **start})
        for flags, start in zip(calls, starts, strict=True)
    ]
    output = [losses(text) for text in run_forked(tmp_path, runs)]
    assert sorted(output[1]) == [1, 2], "from the first step, with a new schedule"
    assert output[1][1] < output[0][1] - 0.1, "but not from untrained weights"
    assert sorted(output[2]) == [3], "goes on from its own checkpoint"


@pytest.mark.unit
def test_shapes_are_read_from_beside_the_recipe() -> None:
    found: dict[str, Any] = {path.stem: yaml_config.read(str(path)).own["hf-config"] for path in RECIPES}
    assert all(hf_config.read(shape).flags["num-layers"] >= 28 for shape in found.values())


@pytest.mark.megatron
def test_without_transformer_engine_what_needs_it_is_left_off(tmp_path: Path) -> None:
    """The path for a GPU, on the stand-in, with none of --device cpu's flags but those that a GPU would do without."""
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(12, seed=1)})
    run = reduced(tmp_path, next(path for path in RECIPES if path.stem == "qwen3-8b.mi300x"))
    kernels = [f"--no-{name}-fusion" for name in ("bias-swiglu", "bias-dropout", "bias-gelu")]
    host = ["--distributed-backend=gloo", "--use-cpu-initialization", "--num-workers=0"]
    options = {**run.options, "device": "gpu", "failures": {"torch": "not tried"}}
    (output,) = run_forked(tmp_path, [Run(shards=[shards], flags=[*run.flags, *host, *kernels], options=options)])
    assert sorted(losses(output)) == [1, 2]
    assert (
        "isolation: sdpa (te: Transformer Engine is not installed; flash: flash-attn is not installed; torch: not tried)"
        in output
    )
