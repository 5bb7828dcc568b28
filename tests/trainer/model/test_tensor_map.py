"""The rows of Megatron's tensors beside Hugging Face's: every row of either is in the map exactly once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sft_shards.trainer.model import hf_config
from sft_shards.trainer.model.architectures import ARCHITECTURES
from sft_shards.trainer.model.tensor_map import Rows, TensorMap, canonical

pytestmark = pytest.mark.unit

MODELS = Path(__file__).parents[3] / "configs/models"
SMALL = {
    "num_hidden_layers": 3, "hidden_size": 8, "intermediate_size": 5, "num_attention_heads": 4, "head_dim": 2,
    "num_key_value_heads": 2, "vocab_size": 11, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
    "num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 3,
    "norm_topk_prob": True,
}  # fmt: skip


def tensors(name: str, **change: Any) -> TensorMap:
    return TensorMap(hf_config.model_shape({**SMALL, "architectures": [name], **change}, "config.json"))


def test_queries_keys_and_values_by_group() -> None:
    """Four heads of width 2 in two groups: q0 q1 k0 v0 | q2 q3 k1 v1."""
    found = tensors("LlamaForCausalLM").find("decoder.layers.self_attention.linear_qkv.weight", (1,))
    assert found is not None
    prefix = "model.layers.1.self_attn."
    assert [(each.name, each.start, each.at, each.count) for each in found.rows] == [
        (f"{prefix}q_proj.weight", 0, 0, 4),
        (f"{prefix}k_proj.weight", 0, 4, 2),
        (f"{prefix}v_proj.weight", 0, 6, 2),
        (f"{prefix}q_proj.weight", 4, 8, 4),
        (f"{prefix}k_proj.weight", 2, 12, 2),
        (f"{prefix}v_proj.weight", 2, 14, 2),
    ]
    assert found.shape == (16, 8)
    assert [*found.part(3, 5)] == [
        Rows(name=f"{prefix}q_proj.weight", start=3, at=0, count=1),
        Rows(name=f"{prefix}k_proj.weight", start=0, at=1, count=1),
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_row_is_in_the_map_once(name: str, tied: bool) -> None:
    found = tensors(name, tie_word_embeddings=tied)
    covered: dict[str, list[int]] = {}
    for tensor in found.tensors():
        at = 0
        for part in tensor.rows:
            assert part.at == at
            at += part.count
            covered.setdefault(part.name, []).extend(range(part.start, part.start + part.count))
        assert tensor.shape[0] == at
    shapes = found.hf_shapes()
    assert covered.keys() == shapes.keys()
    assert all(sorted(rows) == [*range(shapes[name][0])] for name, rows in covered.items())
    assert ("lm_head.weight" in shapes) is not tied


def test_a_key_names_its_layer_and_expert_or_has_axes_for_them() -> None:
    found = tensors("Qwen3MoeForCausalLM")
    stacked = "decoder.layers.mlp.experts.experts.linear_fc1.weight"
    named = "decoder.layers.2.mlp.experts.experts.linear_fc1.weight"
    assert found.leading(stacked) == (3, 3)
    assert found.leading(named) == (3,)
    assert found.leading("embedding.word_embeddings.weight") == ()
    both = found.find(stacked, (2, 1))
    assert both == found.find(named, (1,))
    assert both is not None
    assert [each.name for each in both.rows] == [
        f"model.layers.2.mlp.experts.1.{part}_proj.weight" for part in ("gate", "up")
    ]
    assert found.find("decoder.layers.mlp.nothing.weight", (1,)) is None
    assert canonical("decoder.final_layernorm.weight") == ("decoder.final_layernorm.weight", {})


@pytest.mark.parametrize("norm", ["self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight"])
def test_a_norm_by_either_of_its_names(norm: str) -> None:
    found = tensors("LlamaForCausalLM").find(f"decoder.layers.{norm}", (2,))
    assert found is not None
    assert [each.name for each in found.rows] == ["model.layers.2.input_layernorm.weight"]


def test_layers_without_experts_have_no_tensors_of_them() -> None:
    shapes = tensors("Qwen3MoeForCausalLM", mlp_only_layers=[1]).hf_shapes()
    assert "model.layers.1.mlp.gate_proj.weight" in shapes
    assert "model.layers.0.mlp.gate_proj.weight" not in shapes
    assert not [name for name in shapes if name.startswith(("model.layers.1.mlp.experts", "model.layers.1.mlp.gate."))]


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("llama3.1-8b", 8_030_261_248),
        ("llama3.3-70b", 70_553_706_496),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_published_models_have_the_parameters_that_they_are_published_with(model: str, parameters: int) -> None:
    """The numbers that the safetensors metadata of these models show on the hub."""
    raw = json.loads((MODELS / f"{model}.json").read_text())
    shapes = TensorMap(hf_config.model_shape(raw, model)).hf_shapes().values()
    assert sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes) == parameters
