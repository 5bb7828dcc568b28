"""A config.json as Megatron's flags: the published models, both spellings of rotary positions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.model import hf_config

pytestmark = pytest.mark.unit

MODELS = Path(__file__).parents[3] / "configs/models"

EVERYWHERE = {
    "swiglu": True, "normalization": "RMSNorm", "disable-bias-linear": True, "position-embedding-type": "rope",
    "rotary-percent": 1.0, "rotary-interleaved": False, "rotary-seq-len-interpolation-factor": None,
    "untie-embeddings-and-output-weights": True, "group-query-attention": True,
}  # fmt: skip
LLAMA = {
    **EVERYWHERE, "num-query-groups": 8, "kv-channels": 128, "norm-epsilon": 1e-5, "rotary-base": 500000,
    "use-rope-scaling": True, "rope-scaling-factor": 8.0, "add-qkv-bias": False, "qk-layernorm": False,
    "num-experts": None,
}  # fmt: skip
QWEN = {**EVERYWHERE, "kv-channels": 128, "norm-epsilon": 1e-6, "rotary-base": 1000000, "use-rope-scaling": False}
QWEN3 = {**QWEN, "add-qkv-bias": False, "qk-layernorm": True, "num-attention-heads": 32}

PUBLISHED: dict[str, tuple[dict[str, Any], int, int]] = {
    "llama3.1-8b": (
        {**LLAMA, "num-layers": 32, "hidden-size": 4096, "ffn-hidden-size": 14336, "num-attention-heads": 32},
        128256,
        131072,
    ),
    "llama3.3-70b": (
        {**LLAMA, "num-layers": 80, "hidden-size": 8192, "ffn-hidden-size": 28672, "num-attention-heads": 64},
        128256,
        131072,
    ),
    "qwen2.5-7b": (
        {
            **QWEN, "num-layers": 28, "hidden-size": 3584, "ffn-hidden-size": 18944, "num-attention-heads": 28,
            "num-query-groups": 4, "add-qkv-bias": True, "qk-layernorm": False, "num-experts": None,
        },
        152064,
        131072,
    ),
    "qwen3-8b": (
        {
            **QWEN3, "num-layers": 36, "hidden-size": 4096, "ffn-hidden-size": 12288, "num-query-groups": 8,
            "num-experts": None,
        },
        151936,
        40960,
    ),
    "qwen3-30b-a3b": (
        {
            **QWEN3, "num-layers": 48, "hidden-size": 2048, "ffn-hidden-size": 6144, "num-query-groups": 4,
            "num-experts": 128, "moe-ffn-hidden-size": 768, "moe-router-topk": 8,
            "moe-router-score-function": "softmax", "moe-router-pre-softmax": False, "moe-layer-freq": 1,
        },
        151936,
        40960,
    ),
}  # fmt: skip


def published(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text())
    return raw


def changed(name: str = "llama3.1-8b", **change: Any) -> hf_config.ModelShape:
    return hf_config.model_shape({**published(name), **change}, "config.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name: str) -> None:
    flags, vocabulary, positions = PUBLISHED[name]
    found = hf_config.read(str(MODELS / f"{name}.json"))
    assert found.flags == flags
    assert (found.vocab_size, found.max_positions, found.window) == (vocabulary, positions, None)


def test_every_model_beside_the_recipes_is_one_of_them() -> None:
    assert {path.stem for path in MODELS.glob("*.json")} == set(PUBLISHED)


def test_a_small_llama() -> None:
    """Llama-3.2-1B: tied embeddings, another scaling factor, head_dim written out."""
    scaling = {**published("llama3.1-8b")["rope_scaling"], "factor": 32.0}
    small = {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64}
    found = changed(**small, tie_word_embeddings=True, rope_scaling=scaling).flags
    assert (found["kv-channels"], found["rope-scaling-factor"]) == (64, 32.0)
    assert found["untie-embeddings-and-output-weights"] is False


def test_llama_2_had_no_groups_and_no_rotary_base() -> None:
    raw = published("llama3.1-8b")
    for key in ("num_key_value_heads", "rope_theta", "rope_scaling", "attention_bias", "mlp_bias"):
        del raw[key]
    found = hf_config.model_shape(raw, "config.json").flags
    assert (found["group-query-attention"], found["rotary-base"]) == (False, 10000)
    assert "num-query-groups" not in found


def test_mistral_and_its_window() -> None:
    mistral = {"architectures": ["MistralForCausalLM"], "rope_scaling": None, "head_dim": None}
    assert changed(**mistral, sliding_window=4096).window == 4096
    assert changed(**mistral, sliding_window=None).window is None
    assert changed("qwen2.5-7b", use_sliding_window=True).window == 131072


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_5_writes_rotary_positions_in_one_mapping(name: str) -> None:
    raw = published(name)
    old = {"rope_theta": raw.pop("rope_theta"), "rope_type": "default", **(raw.pop("rope_scaling") or {})}
    assert hf_config.model_shape({**raw, "rope_parameters": old}, "x").flags == PUBLISHED[name][0]
    assert hf_config.model_shape({**published(name), "rope_parameters": old}, "x").flags == PUBLISHED[name][0]


def test_the_older_spelling_of_the_kind_of_scaling() -> None:
    scaling = published("llama3.1-8b")["rope_scaling"]
    scaling["type"] = scaling.pop("rope_type")
    assert changed(rope_scaling=scaling).flags == PUBLISHED["llama3.1-8b"][0]


def test_experts_in_some_layers_only() -> None:
    small = {"num_hidden_layers": 6}
    assert changed("qwen3-30b-a3b", **small, decoder_sparse_step=2).flags["moe-layer-freq"] == "[0,1,0,1,0,1]"
    assert changed("qwen3-30b-a3b", **small, mlp_only_layers=[0]).flags["moe-layer-freq"] == "[0,1,1,1,1,1]"
    assert changed("qwen3-30b-a3b", norm_topk_prob=False).flags["moe-router-pre-softmax"] is True
    renamed = published("qwen3-30b-a3b")
    renamed["num_local_experts"] = renamed.pop("num_experts")
    assert hf_config.model_shape(renamed, "x").flags["num-experts"] == 128


SCALING = {"rope_type": "llama3", "factor": 8.0, **hf_config.LLAMA3_SCALING}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM is not one of LlamaForCausalLM, Mistral"),
        ({"architectures": None}, "architecture unnamed is not one of"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', Megatron can do silu only"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_type is 'linear'"),
        ({"rope_scaling": {**SCALING, "low_freq_factor": 2.0}}, "low_freq_factor of its rotary scaling is 2.0, Megatron can do 1"),
        ({"rope_scaling": {**SCALING, "original_max_position_embeddings": 4096}}, "is 4096, Megatron can do 8192"),
        ({"rope_scaling": {**SCALING, "factor": None}}, "factor is missing" ),
        ({"rope_parameters": {"rope_theta": 10000.0}}, "rope_theta is 500000.0 in one place and 10000.0 in another"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1}}}, "the same rotary positions in all layers"),
        ({"rope_theta": 10000.5}, "rope_theta is 10000.5, Megatron can do a whole number"),
        ({"num_hidden_layers": None}, "num_hidden_layers is None, a number above 0"),
        ({"hidden_size": "4096"}, "hidden_size is '4096'"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
    ],
)  # fmt: skip
def test_what_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as error:
        changed(**change)
    said = str(error.value)
    assert words in said
    assert said.startswith("config.json: ")
    assert "\n" not in said


def test_a_key_that_is_missing_is_named() -> None:
    raw = published("qwen3-8b")
    del raw["head_dim"]
    with pytest.raises(UsageError, match="head_dim is missing"):
        hf_config.model_shape(raw, "x")
    moe = published("qwen3-30b-a3b")
    del moe["norm_topk_prob"]
    with pytest.raises(UsageError, match="norm_topk_prob is missing"):
        hf_config.model_shape(moe, "x")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*config\.json .*name a model's folder"):
        hf_config.read(str(tmp_path))
    file = tmp_path / "config.json"
    for text, words in (("{", "is not JSON"), ("[]", "holds no mapping"), ("\xff", "is not JSON")):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(UsageError, match=words):
            hf_config.read(str(file))
    file.write_text(json.dumps(published("qwen3-8b")))
    assert hf_config.read(str(tmp_path)).flags == hf_config.read(str(file)).flags == PUBLISHED["qwen3-8b"][0]
