"""What LoRA's options mean, and every call that is refused: without Megatron, and before a model is built."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer import yaml_config
from sft_shards.trainer.job import Job
from sft_shards.trainer.model import adapter_resume, lora
from sft_shards.trainer.model.lora import Lora

pytestmark = pytest.mark.unit
LLAMA, MOE, GLM = "LlamaForCausalLM", "Qwen3MoeForCausalLM", "GlmForCausalLM"


def job(**given: Any) -> Job:
    return Job(shards=("s",), **{"model": "m", "lora_rank": 8, **given})


def adapters(**given: Any) -> Lora:
    known = {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": ("q", "v"), "architecture": LLAMA}
    return Lora(**{**known, **given})


def test_defaults() -> None:
    made = lora.parse(job(), architecture=LLAMA)
    assert made == adapters(targets=lora.TARGETS)
    assert made is not None
    assert made.scaling == 2.0
    assert made.module(3, "gate") == "model.layers.3.mlp.gate_proj"
    assert lora.parse(job(lora_rank=None), architecture=LLAMA) is None
    chosen = lora.parse(job(lora_targets="v, q", lora_alpha=4.0, lora_dropout=0.1), architecture=LLAMA)
    assert chosen == adapters(targets=("q", "v"), alpha=4.0, dropout=0.1)


def test_experts_and_fused_layers_get_no_adapters() -> None:
    made = lora.parse(job(), architecture=MOE)
    assert made is not None
    assert made.targets == ("q", "k", "v", "o")
    with pytest.raises(UsageError, match=r"'gate' lies in the experts, where PEFT would .* use q,k,v,o"):
        lora.parse(job(lora_targets="q,gate"), architecture=MOE)
    fused = lora.parse(job(), architecture=GLM)
    assert fused is not None
    assert fused.targets == ("q", "k", "v", "o", "down")
    with pytest.raises(UsageError, match="'up' is half of one linear layer in GlmForCausalLM"):
        lora.parse(job(lora_targets="up"), architecture=GLM)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": None}, "--lora-rank needs --model"),
        ({"lora_rank": None, "lora_alpha": 8.0}, "--lora-alpha needs --lora-rank"),
        ({"lora_rank": None, "lora_targets": "q"}, "--lora-targets needs --lora-rank"),
        ({"lora_rank": 0}, "--lora-rank 0: a number 1 or more"),
        ({"lora_alpha": 0.0}, "--lora-alpha 0.0: a number above 0"),
        ({"lora_dropout": 1.0}, "--lora-dropout 1.0: a number from 0 to below 1"),
        ({"lora_targets": "q,w"}, "'w' is none of q,k,v,o,gate,up,down"),
    ],
)
def test_calls_that_are_wrong(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as error:
        lora.parse(job(**given), architecture=LLAMA)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


SHAPE = {"num_attention_heads": 8, "group_query_attention": True, "num_query_groups": 2, "hidden_size": 64,
         "kv_channels": 16, "ffn_hidden_size": 96, "num_layers": 3}  # fmt: skip


def test_layouts_and_flags_that_cannot_train_adapters() -> None:
    lora.check(Namespace(**SHAPE, tensor_model_parallel_size=2))
    with pytest.raises(UsageError, match="TP 4 would cut through the model's 2 key and value heads"):
        lora.check(Namespace(**SHAPE, tensor_model_parallel_size=4))
    for name in lora.UNSUPPORTED:
        with pytest.raises(UsageError, match=f"does not go with --{name.replace('_', '-')}, which"):
            lora.check(Namespace(**SHAPE, tensor_model_parallel_size=1, **{name: True}))


def test_parameters_by_hand() -> None:
    """q: 64 → 128, v: 64 → 32, down: 96 → 64; A of [8, inputs], B of [outputs, 8], three layers."""
    made, args = adapters(targets=("q", "v", "down")), Namespace(**SHAPE)
    assert lora.parameters(made, args) == 3 * 8 * ((64 + 128) + (64 + 32) + (96 + 64))
    assert lora.parameters(made, args, tensor=2) == 3 * 8 * ((64 + 64) + (64 + 16) + (48 + 64))
    assert lora.describe(made, args).startswith("LoRA: rank 8, alpha 16 on q,v,down: 10,752 parameters")


def test_options_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lora-rank: 8\nlora_alpha: 16\nlora-targets: q,v\n")
    assert yaml_config.read(str(file)).own == {"lora-rank": 8, "lora-alpha": 16, "lora-targets": "q,v"}
    file.write_text("lora-rank: many\n")
    with pytest.raises(UsageError, match="'lora-rank' is a number, not 'many'"):
        yaml_config.read(str(file))


class Held:
    """Stands in for a checkpoint's index: names and shapes."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.tensors = {name: Namespace(shape=shape) for name, shape in shapes.items()}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint of `adapters()`."""
    names = [f"model.layers.0.self_attn.{target}_proj" for target in "qv"]
    shapes = {f"{name}.lora_A.weight": (8, 64) for name in names} | {f"{name}.lora_B.weight": (64, 8) for name in names}
    monkeypatch.setattr(adapter_resume.Checkpoint, "open", lambda path, step=None: Held(shapes))
    (tmp_path / "hf").mkdir()
    record = {"base": "", "architecture": LLAMA, "shards": [], "stop": [], "schema": 1}
    record["adapter"] = dataclasses.asdict(adapters())
    (tmp_path / "hf/sft.json").write_text(json.dumps(record))
    return tmp_path


def test_a_checkpoint_goes_on_with_the_same_adapters_only(saved: Path) -> None:
    adapter_resume.check(str(saved), adapters(dropout=0.5), step=None)
    for other, words in (
        ({"rank": 4}, "its adapters have rank 8, this call says 4; give the same --lora-rank"),
        ({"alpha": 8.0}, "alpha 16, this call says 8"),
        ({"targets": ("q",)}, "targets q,v, this call says q"),
    ):
        with pytest.raises(UsageError, match=words):
            adapter_resume.check(str(saved), adapters(**other), step=None)
    with pytest.raises(UsageError, match="holds adapters, no whole model; --load it with --lora-rank 8"):
        adapter_resume.check(str(saved), None, step=None)
    with pytest.raises(UsageError, match=f"--pretrained-checkpoint {saved}: holds adapters"):
        adapter_resume.check(str(saved), None, step=None, option="--pretrained-checkpoint")


def test_a_folder_of_checkpoints_holds_one_kind(saved: Path) -> None:
    adapter_resume.check_save(str(saved), adapters())
    for other in (adapters(alpha=1.0), adapters(rank=4), None):
        with pytest.raises(
            UsageError, match=r"--save .*: holds checkpoints of adapters \(rank .*; name another folder"
        ):
            adapter_resume.check_save(str(saved), other)


def test_the_index_alone_tells_rank_and_kind(saved: Path) -> None:
    (saved / "hf/sft.json").unlink()
    adapter_resume.check(str(saved), adapters(alpha=1.0), step=None)
    with pytest.raises(UsageError, match="rank 8, this call says 4"):
        adapter_resume.check(str(saved), adapters(rank=4), step=None)


def test_a_whole_model_is_no_adapter(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Held({"embedding.word_embeddings.weight": (128, 64)})
    monkeypatch.setattr(adapter_resume.Checkpoint, "open", lambda path, step=None: whole)
    adapter_resume.check(str(saved), None, step=None)
    adapter_resume.check_save(str(saved), None)
    with pytest.raises(UsageError, match="holds checkpoints of a whole model, and this run trains adapters"):
        adapter_resume.check_save(str(saved), adapters())
    with pytest.raises(UsageError, match="holds a whole model, --lora-rank trains adapters; leave --lora-rank out"):
        adapter_resume.check(str(saved), adapters(), step=None)


def test_another_format_is_judged_by_what_was_written_beside_it(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_index(path: Path, step: int | None = None) -> None:
        raise UsageError("one file a rank")

    monkeypatch.setattr(adapter_resume.Checkpoint, "open", no_index)
    adapter_resume.check(str(saved), adapters(), step=None)
    with pytest.raises(UsageError, match="rank 8, this call says 4"):
        adapter_resume.check(str(saved), adapters(rank=4), step=None)
    with pytest.raises(UsageError, match="holds adapters, no whole model"):
        adapter_resume.check(str(saved), None, step=None)
