"""The shape of a model from its Hugging Face `config.json`, as Megatron's flags: nobody copies twenty numbers.

    shape = read("models/Llama-3.1-8B")
    shape.flags["num-layers"], shape.flags["rotary-base"], shape.vocab_size      # 32, 500000, 128256

What the file says and Megatron cannot do (other rotary scalings, biases elsewhere, a sliding window) is refused; a
key that is not there is taken only where every version of transformers agrees on what is meant. What belongs to
training (dropout, the weight of a load-balancing loss, the initial weights) is left to the recipe. That a model built
by these flags gives the logits of transformers is held by tests/trainer/mcore/test_loss_oracle.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import UsageError

SUPPORTED = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)
LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What Megatron's --use-rope-scaling does; only the factor is a flag (tags 0.12 to 0.19, and main)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's shape."""

    path: str
    """The file, for messages."""
    flags: dict[str, Any]
    """Megatron's flags by name: a value; True or False, a switch that must be set or must not; None, not to be set."""
    vocab_size: int
    """Rows of the checkpoint's embedding, often more than the tokenizer has ids."""
    max_positions: int
    """Positions that the model was trained for."""
    window: int | None
    """Positions that attention looks back; None: all."""


def read(path: str) -> Shape:
    """The shape of the model in a folder with a `config.json`, or in such a file.

    Raises:
        UsageError: no such file, not JSON, another architecture, or something in it that Megatron cannot do.
    """
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    try:
        raw = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"--hf-config {path}: cannot read {file} ({error.strerror}); name a model's folder or its config.json"
        ) from None
    except ValueError:
        raise UsageError(f"--hf-config {path}: {file} is not JSON; name a model's folder or its config.json") from None
    if not isinstance(raw, dict):
        raise UsageError(f"--hf-config {path}: {file} holds no mapping; name a model's folder or its config.json")
    return shape(raw, str(file))


def shape(config: Mapping[str, Any], path: str) -> Shape:
    """The shape that a `config.json` describes.

    Raises:
        UsageError: as `read`.
    """
    keys = _Keys(config, path)
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and len(names) == 1 else ""
    if name not in SUPPORTED:
        raise UsageError(
            f"{path}: architecture {', '.join(map(str, names)) or 'unnamed'} is not one of {', '.join(SUPPORTED)}; "
            "give the model's shape by Megatron's flags instead"
        )
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise keys.refused("hidden_act", activation, "silu")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise keys.refused(key, True, "false")
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    groups = heads if name == "LlamaForCausalLM" and not config.get("num_key_value_heads") else None
    groups = groups or keys.count("num_key_value_heads")
    derived = None if name.startswith("Qwen3") or hidden % heads else hidden // heads
    flags: dict[str, Any] = {
        "num-layers": keys.count("num_hidden_layers"),
        "hidden-size": hidden,
        "ffn-hidden-size": keys.count("intermediate_size"),
        "num-attention-heads": heads,
        "group-query-attention": groups != heads,
        **({"num-query-groups": groups} if groups != heads else {}),
        "kv-channels": derived if derived and not config.get("head_dim") else keys.count("head_dim"),
        "swiglu": True,
        "normalization": "RMSNorm",
        "norm-epsilon": keys.number("rms_norm_eps"),
        "disable-bias-linear": True,
        "add-qkv-bias": name == "Qwen2ForCausalLM",
        "qk-layernorm": name.startswith("Qwen3"),
        "untie-embeddings-and-output-weights": not config.get("tie_word_embeddings", False),
        **_rotary(keys),
        **(_experts(keys) if name == "Qwen3MoeForCausalLM" else {"num-experts": None}),
    }
    windowed = name == "MistralForCausalLM" or (name.startswith("Qwen") and config.get("use_sliding_window"))
    return Shape(
        path=path,
        flags=flags,
        vocab_size=keys.count("vocab_size"),
        max_positions=keys.count("max_position_embeddings"),
        window=keys.count("sliding_window") if windowed and config.get("sliding_window") else None,
    )


class _Keys:
    """A configuration whose numbers are asked for by name."""

    def __init__(self, config: Mapping[str, Any], path: str) -> None:
        self.config, self.path = config, path

    def number(self, key: str) -> float:
        value = self.config.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            held = f"{key} is {value!r}" if key in self.config else f"{key} is missing"
            raise UsageError(f"{self.path}: {held}, a number above 0 is expected; is this the config.json of a model?")
        return value

    def count(self, key: str) -> int:
        value = self.number(key)
        if value != int(value):
            raise self.refused(key, value, "a whole number")
        return int(value)

    def refused(self, key: str, value: object, wanted: str) -> UsageError:
        return UsageError(f"{self.path}: {key} is {value!r}, Megatron can do {wanted} only; train it with another tool")


def _rotary(keys: _Keys) -> dict[str, Any]:
    """Rotary positions, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4)."""
    new, old = keys.config.get("rope_parameters") or {}, keys.config.get("rope_scaling") or {}
    rope: dict[str, Any] = {}
    for part in ({"rope_theta": keys.config.get("rope_theta")}, old, new):
        for key, value in part.items():
            key = "rope_type" if key == "type" else key
            if value is not None and rope.setdefault(key, value) != value:
                raise UsageError(
                    f"{keys.path}: {key} is {rope[key]!r} in one place and {value!r} in another; repair it"
                )
    partial = rope.pop("partial_rotary_factor", None) or keys.config.get("partial_rotary_factor") or 1.0
    kind, base = rope.pop("rope_type", "default"), rope.pop("rope_theta", 10000)
    theta = _Keys({"rope_theta": base}, keys.path).count("rope_theta")
    flags: dict[str, Any] = {
        "position-embedding-type": "rope",
        "rotary-base": theta,
        "rotary-percent": partial,
        "rotary-interleaved": False,
        "use-rope-scaling": kind == "llama3",
        "rotary-seq-len-interpolation-factor": None,
    }
    if any(isinstance(value, dict) for value in rope.values()):
        raise keys.refused("rope_parameters", rope, "the same rotary positions in all layers")
    if kind == "default":
        return flags
    if kind != "llama3":
        raise keys.refused("rope_type", kind, "'default' and 'llama3'")
    factor = _Keys(rope, keys.path).number("factor")
    for key, wanted in LLAMA3_SCALING.items():
        if rope.get(key) != wanted:
            raise keys.refused(f"{key} of its rotary scaling", rope.get(key), f"{wanted:g}")
    return {**flags, "rope-scaling-factor": factor}


def _experts(keys: _Keys) -> dict[str, Any]:
    """A mixture of experts: softmax over all of them, the best taken, their weights summing to 1 where it says so."""
    config, layers = keys.config, keys.count("num_hidden_layers")
    step = config.get("decoder_sparse_step") or 1
    dense = set(config.get("mlp_only_layers") or ())
    pattern = [int(layer not in dense and (layer + 1) % step == 0) for layer in range(layers)]
    if "norm_topk_prob" not in config:
        raise UsageError(f"{keys.path}: norm_topk_prob is missing; is this the config.json of a model?")
    return {
        "num-experts": keys.count("num_experts" if "num_experts" in config else "num_local_experts"),
        "moe-ffn-hidden-size": keys.count("moe_intermediate_size"),
        "moe-router-topk": keys.count("num_experts_per_tok"),
        "moe-router-score-function": "softmax",
        "moe-router-pre-softmax": not config["norm_topk_prob"],  # else softmax over the best: the same, normalized
        "moe-layer-freq": 1 if all(pattern) else str(pattern).replace(" ", ""),
    }
