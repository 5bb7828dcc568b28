"""Which rows of Megatron's tensors are which rows of a Hugging Face model's tensors; import, export and LoRA read it.

Megatron stores q, k and v as one tensor, by query group; gate and up as one; each whatever the layout (TP, PP, EP) of
the run, because a torch_dist checkpoint and `sharded_state_dict()` speak of whole tensors. So the map knows no
layout and no implementation of a layer (Megatron's or Transformer Engine's), and it is the same in both directions.

    tensors = TensorMap(shape)
    tensors.find("decoder.layers.self_attention.linear_qkv.weight", (3,))
        Tensor(rows=(Rows(name="model.layers.3.self_attn.q_proj.weight", start=0, at=0, count=64), …k, …v, …q, …))

Example, 3 rows: two query heads and one key/value group, heads of width 1, v left out. The Megatron tensor holds
q0, q1, k0, so it is `Rows(q, start=0, at=0, count=2)` and `Rows(k, start=0, at=2, count=1)`; with two groups and four
heads it would be q0 q1 k0 | q2 q3 k1: `(q, 0, 0, 2) (k, 0, 2, 1) (q, 2, 3, 2) (k, 1, 5, 1)`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sft_shards.trainer.model.architectures import ARCHITECTURES
from sft_shards.trainer.model.hf_config import ModelShape

LAYER = "decoder.layers.{layer}."
EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"
HF_LAYER = "model.layers.{layer}."
HF_EMBEDDING, HF_OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
VOCABULARY = (EMBEDDING, OUTPUT)
"""Megatron's tensors that may have more rows than the model: the vocabulary is padded to a multiple of TP."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Consecutive rows that a Megatron tensor and a Hugging Face tensor have in common."""

    name: str
    """Hugging Face tensor; may hold `{layer}` and `{expert}` in a pattern."""
    start: int
    """First row in the Hugging Face tensor."""
    at: int
    """First row in the Megatron tensor."""
    count: int


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One Megatron tensor of one layer and one expert: the Hugging Face rows that it consists of."""

    key: str
    """With layer and expert written out: `decoder.layers.3.mlp.experts.experts.7.linear_fc1.weight`."""
    rows: tuple[Rows, ...]
    """In order; every row of the Megatron tensor is in exactly one of them, padding of the vocabulary in none."""
    columns: int | None
    """Values in a row; None: the tensor has one axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape without padding of the vocabulary: [rows, columns] or [rows]."""
        height = sum(part.count for part in self.rows)
        return (height,) if self.columns is None else (height, self.columns)

    def part(self, start: int, stop: int) -> Iterator[Rows]:
        """The Hugging Face rows of rows `start` to `stop`; `at` counts from `start`.

        Of rows q(0, 2), k(2, 1) the part from 1 to 3 is row 1 of q at 0, and row 0 of k at 1.
        """
        for rows in self.rows:
            first, last = max(start, rows.at), min(stop, rows.at + rows.count)
            if first < last:
                yield replace(rows, start=rows.start + first - rows.at, at=first - start, count=last - first)


class TensorMap:
    """All tensors of a model of one shape, by both of their names."""

    def __init__(self, shape: ModelShape) -> None:
        assert shape.architecture, "only a config.json names its tensors"
        self.shape = shape
        self.architecture = ARCHITECTURES[shape.architecture]
        flags = shape.flags
        self.layers: int = flags["num-layers"]
        self.experts: int = flags.get("num-experts") or 0
        frequency = flags.get("moe-layer-freq", 1)
        pattern: list[int] = ast.literal_eval(frequency) if isinstance(frequency, str) else [1] * self.layers
        self.with_experts = [bool(self.experts and each) for each in pattern]
        """For each layer, whether its MLP is a mixture of experts."""
        self.tied = not flags["untie-embeddings-and-output-weights"]
        self._patterns = {pattern.key: pattern for pattern in self._all()}

    def find(self, key: str, indices: Sequence[int] = ()) -> Tensor | None:
        """The tensor that a checkpoint calls `key`.

        Args:
            key: as in a torch_dist checkpoint or in `sharded_state_dict()`.
            indices: offsets on the leading axes that the key stands for, layer before expert: `(3,)` for layer 3 of
                `decoder.layers.self_attention.linear_qkv.weight`, `(7,)` for expert 7 of
                `decoder.layers.3.mlp.experts.experts.linear_fc1.weight`.

        Returns:
            None where the model has no such tensor.
        """
        pattern, numbers = canonical(key)
        found = self._patterns.get(pattern)
        if found is None:
            return None
        names = re.findall(r"\{(\w+)\}", pattern)
        left = list(indices)
        values = {name: numbers[name] if name in numbers else left.pop(0) for name in names}
        assert not left, (key, indices)
        return _written_out(found, values)

    def leading(self, key: str) -> tuple[int, ...]:
        """Sizes of the axes in front of the tensor's own, in a checkpoint: layers, then experts.

        `(32,)` for `decoder.layers.self_attention.linear_qkv.weight` of 32 layers, `()` where the key names its layer.
        """
        pattern, numbers = canonical(key)
        sizes = {"layer": self.layers, "expert": self.experts}
        return tuple(sizes[name] for name in re.findall(r"\{(\w+)\}", pattern) if name not in numbers)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of the model, layer after layer, each once (a norm under the name that local layers give it)."""
        alternatives = {_fused_norm(key) for key in self._patterns if _fused_norm(key) != key}
        outside = [pattern for key, pattern in self._patterns.items() if not key.startswith(LAYER)]
        inside = [p for key, p in self._patterns.items() if key.startswith(LAYER) and key not in alternatives]
        yield from (pattern for pattern in outside if pattern.key == EMBEDDING)
        for layer in range(self.layers):
            for pattern in inside:
                if self._has(layer, pattern.key):
                    for expert in range(self.experts if "{expert}" in pattern.key else 1):
                        yield _written_out(pattern, {"layer": layer, "expert": expert})
        yield from (pattern for pattern in outside if pattern.key != EMBEDDING)

    def hf_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the Hugging Face model, in the order of its layers."""
        rows: dict[str, int] = {}
        columns: dict[str, int | None] = {}
        for tensor in self.tensors():
            for part in tensor.rows:
                rows[part.name] = rows.get(part.name, 0) + part.count
                columns[part.name] = tensor.columns
        return {name: (count,) if (width := columns[name]) is None else (count, width) for name, count in rows.items()}

    def _has(self, layer: int, key: str) -> bool:
        if ".mlp." not in key:
            return True
        return self.with_experts[layer] == (".mlp.experts." in key or ".mlp.router." in key)

    def _all(self) -> Iterator[Tensor]:
        """The patterns, with `{layer}` and `{expert}` in their names."""
        kind, flags = self.architecture, self.shape.flags
        hidden, width = flags["hidden-size"], flags["kv-channels"]
        heads = flags["num-attention-heads"]
        groups = flags.get("num-query-groups") or heads
        vocabulary = self.shape.vocab_size

        def whole(key: str, name: str, count: int, columns: int | None = None) -> Tensor:
            return Tensor(key=key, rows=(Rows(name=name, start=0, at=0, count=count),), columns=columns)

        yield whole(EMBEDDING, HF_EMBEDDING, vocabulary, hidden)
        attention, theirs = f"{LAYER}self_attention.", f"{HF_LAYER}self_attn."
        yield whole(f"{LAYER}input_layernorm.weight", f"{HF_LAYER}{kind.attention_norm}.weight", hidden)
        for end in ("weight", "bias") if flags["add-qkv-bias"] else ("weight",):
            names = {part: f"{theirs}{part}_proj.{end}" for part in "qkv"}
            rows = _by_group(names, heads=heads, groups=groups, width=width)
            yield Tensor(key=f"{attention}linear_qkv.{end}", rows=rows, columns=hidden if end == "weight" else None)
        for part in "qk" if flags["qk-layernorm"] else "":
            yield whole(f"{attention}{part}_layernorm.weight", f"{theirs}{part}_norm.weight", width)
        yield whole(f"{attention}linear_proj.weight", f"{theirs}o_proj.weight", hidden, heads * width)
        yield whole(f"{LAYER}pre_mlp_layernorm.weight", f"{HF_LAYER}{kind.mlp_norm}.weight", hidden)
        inner = flags["ffn-hidden-size"]
        names_of = [f"{HF_LAYER}{module}.weight" for module in kind.gate_up]
        yield Tensor(key=f"{LAYER}mlp.linear_fc1.weight", rows=_stacked(names_of, 2 * inner), columns=hidden)
        yield whole(f"{LAYER}mlp.linear_fc2.weight", f"{HF_LAYER}{kind.down}.weight", hidden, inner)
        if kind.experts is not None:
            expert, inner = f"{LAYER}mlp.experts.experts.{{expert}}.", flags["moe-ffn-hidden-size"]
            names_of = [f"{HF_LAYER}{module}.weight" for module in (kind.experts.gate, kind.experts.up)]
            yield whole(f"{LAYER}mlp.router.weight", f"{HF_LAYER}{kind.experts.router}.weight", self.experts, hidden)
            yield Tensor(key=f"{expert}linear_fc1.weight", rows=_stacked(names_of, 2 * inner), columns=hidden)
            yield whole(f"{expert}linear_fc2.weight", f"{HF_LAYER}{kind.experts.down}.weight", hidden, inner)
        # The same norms as layers name them in which they are fused with the linear layer behind.
        for norm, name in (("input_layernorm", kind.attention_norm), ("pre_mlp_layernorm", kind.mlp_norm)):
            yield whole(_fused_norm(f"{LAYER}{norm}.weight"), f"{HF_LAYER}{name}.weight", hidden)
        yield whole("decoder.final_layernorm.weight", "model.norm.weight", hidden)
        if not self.tied:
            yield whole(OUTPUT, HF_OUTPUT, vocabulary, hidden)


def canonical(key: str) -> tuple[str, dict[str, int]]:
    """A checkpoint's key as a pattern with `{layer}` and `{expert}`, and the numbers that it names.

    `decoder.layers.3.mlp.…` names its layer; `decoder.layers.mlp.…` has an axis of all layers in front.
    """
    numbers: dict[str, int] = {}

    def put(name: str, text: str, found: re.Match[str]) -> str:
        if found[1]:
            numbers[name] = int(found[1][:-1])
        return f"{text}{{{name}}}."

    key = re.sub(r"^decoder\.layers\.(\d+\.)?", lambda found: put("layer", "decoder.layers.", found), key)
    key = re.sub(
        r"\.experts\.experts\.(\d+\.)?(?=linear_)", lambda found: put("expert", ".experts.experts.", found), key
    )
    return key, numbers


def _fused_norm(key: str) -> str:
    return key.replace("input_layernorm.", "self_attention.linear_qkv.layer_norm_").replace(
        "pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_"
    )


def _by_group(names: dict[str, str], *, heads: int, groups: int, width: int) -> tuple[Rows, ...]:
    """q, k and v by group: the query heads of a group, its key, its value; see the example of the module."""
    counts = {"q": heads // groups * width, "k": width, "v": width}
    found, at = [], 0
    for group in range(groups):
        for part, count in counts.items():
            found.append(Rows(name=names[part], start=group * count, at=at, count=count))
            at += count
    return tuple(found)


def _stacked(names: Sequence[str], height: int) -> tuple[Rows, ...]:
    """Tensors of equal height, one below the other, `height` rows in all."""
    each = height // len(names)
    return tuple(Rows(name=name, start=0, at=number * each, count=each) for number, name in enumerate(names))


def _written_out(pattern: Tensor, values: dict[str, int]) -> Tensor:
    rows = tuple(replace(part, name=part.name.format(**values)) for part in pattern.rows)
    return replace(pattern, key=pattern.key.format(**values), rows=rows)
