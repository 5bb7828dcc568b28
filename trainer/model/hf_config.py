"""A model shape as Megatron's flags, from a Hugging Face `config.json`: nobody copies twenty numbers.

    shape = read("models/Llama-3.1-8B")
    shape.flags["num-layers"], shape.flags["rotary-base"], shape.vocab_size      # 32, 500000, 128256

What is particular to an architecture stands in `architectures`. What the file says and Megatron cannot do (other
rotary scalings, biases elsewhere) is refused; a key that is missing is completed only where every version of
transformers agrees on its meaning. What belongs to training (dropout, the weight of a load-balancing loss) is left
to the recipe. tests/trainer/model/test_architectures.py shows that a model built from these flags gives the logits
of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.model.architectures import ARCHITECTURES, Architecture, Experts

LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What Megatron's --use-rope-scaling does; only the factor is a flag (tags 0.12 to 0.19, and main)."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Widths, depth and kind of a model."""

    path: str
    """The file, for messages."""
    flags: dict[str, Any]
    """Megatron's flags by name: a value; True or False, a switch that must be set or must not; None, not to be set."""
    vocab_size: int
    """Rows of the model's embedding, often more than the tokenizer has ids."""
    max_positions: int
    """Positions that the model was trained for."""
    window: int | None
    """Positions that attention looks back; None: all."""
    ids: int | None = None
    """Rows of the embedding that stand for ids, the others being padding; None: all of them."""
    architecture: str = ""
    """Its name in `ARCHITECTURES`; "": the shape comes from a Megatron checkpoint."""


def read(path: str, *, option: str = "--hf-config") -> ModelShape:
    """The shape of the model in a folder with a `config.json`, or in such a file.

    Args:
        option: how the user named the path, for messages.

    Raises:
        UsageError: no such file, not JSON, another architecture, or something in it that Megatron cannot do.
    """
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    remedy = "name a model's folder or its config.json"
    try:
        raw = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot read {file} ({error.strerror}); {remedy}") from None
    except ValueError:
        raise UsageError(f"{option} {path}: {file} is not JSON; {remedy}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{option} {path}: {file} holds no mapping; {remedy}")
    return model_shape(raw, str(file))


def model_shape(config: Mapping[str, Any], path: str) -> ModelShape:
    """The model shape that a `config.json` describes.

    Raises:
        UsageError: as `read`.
    """
    keys = Keys(config, path)
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and len(names) == 1 else ""
    if name not in ARCHITECTURES:
        raise UsageError(
            f"{path}: architecture {', '.join(map(str, names)) or 'unnamed'} is not one of {', '.join(ARCHITECTURES)}; "
            "give the model's shape by Megatron's flags instead"
        )
    kind = ARCHITECTURES[name]
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise keys.refused("hidden_act", activation, "silu")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key) and key != kind.qkv_bias:
            raise keys.refused(key, True, "false")
    return ModelShape(
        path=path,
        flags={
            **_layers(keys, kind),
            **_rotary(keys, kind),
            **(_experts(keys, kind.experts) if kind.experts else {"num-experts": None}),
        },
        vocab_size=keys.count("vocab_size"),
        max_positions=keys.count("max_position_embeddings"),
        window=_window(keys, kind),
        architecture=name,
    )


class Keys:
    """A configuration whose numbers are asked for by name."""

    def __init__(self, config: Mapping[str, Any], path: str) -> None:
        self.config, self.path = config, path

    def number(self, key: str) -> float:
        """A number above 0; UsageError otherwise."""
        value = self.config.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            held = f"{key} is {value!r}" if key in self.config else f"{key} is missing"
            raise UsageError(f"{self.path}: {held}, a number above 0 is expected; is this the config.json of a model?")
        return value

    def count(self, key: str) -> int:
        """A whole number above 0; UsageError otherwise."""
        value = self.number(key)
        if value != int(value):
            raise self.refused(key, value, "a whole number")
        return int(value)

    def refused(self, key: str, value: object, wanted: str) -> UsageError:
        """The error for a value that Megatron cannot express."""
        return UsageError(f"{self.path}: {key} is {value!r}, Megatron can do {wanted} only; train it with another tool")


def _layers(keys: Keys, kind: Architecture) -> dict[str, Any]:
    config = keys.config
    heads, hidden = keys.count("num_attention_heads"), keys.count("hidden_size")
    stated = kind.grouped or config.get("num_key_value_heads")
    groups = keys.count("num_key_value_heads") if stated else heads
    derived = hidden // heads if kind.head_dim == "derived" and not hidden % heads else 0
    return {
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
        "add-qkv-bias": bool(config.get(kind.qkv_bias, True)) if isinstance(kind.qkv_bias, str) else kind.qkv_bias,
        "qk-layernorm": kind.qk_norm,
        "untie-embeddings-and-output-weights": not config.get("tie_word_embeddings", False),
    }


def _window(keys: Keys, kind: Architecture) -> int | None:
    held = kind.window == "always" or (kind.window and keys.config.get(kind.window))
    return keys.count("sliding_window") if held and keys.config.get("sliding_window") else None


def _rotary(keys: Keys, kind: Architecture) -> dict[str, Any]:
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
    partial = rope.pop("partial_rotary_factor", None) or keys.config.get("partial_rotary_factor") or kind.rotary_percent
    scaling, base = rope.pop("rope_type", "default"), rope.pop("rope_theta", 10000)
    flags: dict[str, Any] = {
        "position-embedding-type": "rope",
        "rotary-base": Keys({"rope_theta": base}, keys.path).count("rope_theta"),
        "rotary-percent": partial,
        "rotary-interleaved": kind.rotary_interleaved,
        "use-rope-scaling": scaling == "llama3",
        "rotary-seq-len-interpolation-factor": None,
    }
    if any(isinstance(value, dict) for value in rope.values()):
        raise keys.refused("rope_parameters", rope, "the same rotary positions in all layers")
    if scaling == "default":
        return flags
    if scaling != "llama3":
        raise keys.refused("rope_type", scaling, "'default' and 'llama3'")
    factor = Keys(rope, keys.path).number("factor")
    for key, wanted in LLAMA3_SCALING.items():
        if rope.get(key) != wanted:
            raise keys.refused(f"{key} of its rotary scaling", rope.get(key), f"{wanted:g}")
    return {**flags, "rope-scaling-factor": factor}


def _experts(keys: Keys, kind: Experts) -> dict[str, Any]:
    """A mixture of experts: softmax over all, the best are taken, their weights sum to 1 where the model says so."""
    config, layers = keys.config, keys.count("num_hidden_layers")
    step = (config.get("decoder_sparse_step") or 1) if kind.sparse else 1
    dense = set(config.get("mlp_only_layers") or ()) if kind.sparse else set()
    pattern = [int(layer not in dense and (layer + 1) % step == 0) for layer in range(layers)]
    if kind.normalised and kind.normalised not in config:
        raise UsageError(f"{keys.path}: {kind.normalised} is missing; is this the config.json of a model?")
    return {
        "num-experts": keys.count(next((key for key in kind.count if key in config), kind.count[0])),
        "moe-ffn-hidden-size": keys.count(kind.hidden),
        "moe-router-topk": keys.count("num_experts_per_tok"),
        "moe-router-score-function": "softmax",
        # softmax over the chosen ones equals softmax over all, normalised
        "moe-router-pre-softmax": bool(kind.normalised) and not config[kind.normalised],
        "moe-layer-freq": 1 if all(pattern) else str(pattern).replace(" ", ""),
    }
