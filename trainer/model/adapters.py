"""LoRA's adapters on Megatron's and Transformer Engine's linear layers, on every layout.

The base is frozen, and each linear layer that is asked for gets an `Adapter` as a submodule, whose output a forward
hook adds to the layer's own. The layer stays what it is: no class is replaced, so the same code serves Megatron's
layers, Transformer Engine's, and those that later versions bring, as long as they are called with their input first
and return a pair (output, bias). `peft.tuners.lora.tp_layer`, which wraps Megatron's layers, fails with all of them
(0.18 to 0.21) and knows no sequence parallelism.

    attach(model, lora, seed=1234)       # freezes the model, adds `lora` to its linear layers

What each rank holds, with t tensor ranks (A is [rank, inputs], B [outputs, rank]):

    column-parallel (q, k, v, gate, up)     A whole, B's rows cut      A's output is gathered along the sequence
    row-parallel    (o, down)               A's columns cut, B whole   A's output is summed over the tensor ranks

Only the narrow output of A is ever sent: rank, not hidden size, numbers per position. With sequence parallelism
each rank sees some positions only, so whole parameters carry Megatron's `sequence_parallel` mark, by which it sums
their gradients over the tensor ranks.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import layers, mappings, random
from torch.nn import functional

from sft_shards.trainer.model.lora import Lora

LINEARS = {
    "self_attention.linear_qkv": ("q", "k", "v"),
    "self_attention.linear_proj": ("o",),
    "mlp.linear_fc1": ("gate", "up"),
    "mlp.linear_fc2": ("down",),
}
"""Linear layers of a Megatron layer, with the targets that lie in each, in the order of its rows."""
ROW_PARALLEL = ("o", "down")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A and B of one target, as this rank holds them."""

    target: str
    """One of `sft_shards.trainer.model.lora.TARGETS`."""
    name: str
    """The linear layer in the Hugging Face model, such as `model.layers.3.self_attn.q_proj`."""
    a: torch.nn.Parameter
    """[rank, inputs]; inputs are this rank's for o and down."""
    b: torch.nn.Parameter
    """[outputs, rank]; outputs are this rank's for all but o and down."""

    @property
    def row_parallel(self) -> bool:
        """A is cut over the tensor ranks, B whole; else B is cut and A whole."""
        return self.target in ROW_PARALLEL


class Adapter(torch.nn.Module):
    """The adapters of one linear layer; called with the layer's input, it returns what is added to its output.

    The parameters are its own, not those of submodules: with --overlap-param-gather Megatron waits for the parameters
    of a module when that module is called.
    """

    def __init__(self, linear: Any, names: dict[str, str], *, lora: Lora, config: Any, seed: int) -> None:
        """Make the adapters of a linear layer.

        Args:
            linear: the layer; its `weight` is [outputs, inputs] of this rank.
            names: the Hugging Face name of each target that gets an adapter, by target, in the order of the rows.
            config: Megatron's TransformerConfig.
            seed: A is drawn from this seed and its name, whole, and then cut: the same values on every layout.
        """
        super().__init__()
        self.lora, self.config = lora, config
        self.sequence_parallel = bool(config.sequence_parallel)
        self.row_parallel = next(iter(names)) in ROW_PARALLEL
        self.widths = _widths(linear, next(iter(names)), config)
        # Transformer Engine keeps the norm before a linear layer inside it, and the layer's input is what it norms.
        self.norm = NormOf(linear, config) if getattr(linear, "layer_norm_weight", None) is not None else None
        self.pairs: dict[str, Pair] = {}
        ranks, rank = parallel_state.get_tensor_model_parallel_world_size(), _tensor_rank()
        inputs = linear.weight.shape[1] * (ranks if self.row_parallel else 1)
        for target, name in names.items():
            whole = draw(name, lora.rank, inputs, seed)
            a = torch.nn.Parameter((whole.chunk(ranks, dim=1)[rank] if self.row_parallel else whole).to(linear.weight))
            b = torch.nn.Parameter(a.new_zeros(self.rows(target, linear), lora.rank))
            cut, full = (a, b) if self.row_parallel else (b, a)
            layers.set_tensor_model_parallel_attributes(cut, True, 1 if self.row_parallel else 0, 1)
            full.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]
            self.register_parameter(f"{target}_a", a)
            self.register_parameter(f"{target}_b", b)
            self.pairs[target] = Pair(target=target, name=name, a=a, b=b)

    def rows(self, target: str, linear: Any) -> int:
        """This rank's outputs of a target."""
        groups = linear.weight.shape[0] // sum(self.widths.values())
        return int(groups * self.widths[target])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The adapters' part of the layer's output.

        Args:
            x: [s, b, inputs] as the layer got it; with sequence parallelism s is this rank's for a column-parallel
                layer.

        Returns:
            [s, b, outputs] as the layer returns it.
        """
        if self.norm is not None:
            x = self.norm(x)
        low = self.project(x)
        if self.row_parallel:
            reduce = (
                mappings.reduce_scatter_to_sequence_parallel_region
                if self.sequence_parallel
                else mappings.reduce_from_tensor_model_parallel_region
            )
            (pair,) = self.pairs.values()
            return functional.linear(reduce(low), pair.b) * self.lora.scaling
        if self.sequence_parallel:
            low = mappings.gather_from_sequence_parallel_region(low)
        else:
            low = mappings.copy_to_tensor_model_parallel_region(low)
        parts = dict(zip(self.pairs, low.split(self.lora.rank, dim=-1), strict=True))
        high = {target: functional.linear(parts[target], pair.b) for target, pair in self.pairs.items()}
        return weave(high, self.widths) * self.lora.scaling

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """Apply A of every pair: [s, b, inputs] to [s, b, pairs * rank]."""
        if self.lora.dropout and self.training:
            # A mask for each pair, as PEFT draws them.
            return torch.cat([functional.linear(self.drop(x), pair.a) for pair in self.pairs.values()], dim=-1)
        return functional.linear(x, torch.cat([pair.a for pair in self.pairs.values()]))

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        """Zero entries at random: alike on all tensor ranks where they hold the same input, else differently."""
        differs = self.row_parallel or self.sequence_parallel
        with random.get_cuda_rng_tracker().fork() if differs else contextlib.nullcontext():
            return functional.dropout(x, self.lora.dropout)


class NormOf:
    """The norm that a linear layer of Transformer Engine applies to its input, computed again for the adapter."""

    def __init__(self, linear: Any, config: Any) -> None:
        self.linear, self.config = linear, config

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden], normed in float32 and returned in the dtype of `x`."""
        weight = self.linear.layer_norm_weight.float()
        if self.config.layernorm_zero_centered_gamma:
            weight = weight + 1
        size, eps = weight.shape, self.config.layernorm_epsilon
        if self.config.normalization == "RMSNorm":
            return functional.rms_norm(x.float(), size, weight, eps).to(x.dtype)
        return functional.layer_norm(x.float(), size, weight, self.linear.layer_norm_bias.float(), eps).to(x.dtype)


def _widths(linear: Any, target: str, config: Any) -> dict[str, int]:
    """Rows of each target of a linear layer, within one group of its rows.

    linear_qkv's rows lie by group: [q: n*d, k: d, v: d] for the n query heads that share a key and a value head of
    d numbers, then the next group. All other layers are one group.
    """
    rows = linear.weight.shape[0]
    if target in ("q", "k", "v"):
        size = config.kv_channels
        return {"q": config.num_attention_heads // config.num_query_groups * size, "k": size, "v": size}
    if target in ("gate", "up"):
        return {"gate": rows // 2, "up": rows // 2}
    return {target: rows}


def weave(parts: dict[str, torch.Tensor], widths: dict[str, int]) -> torch.Tensor:
    """Put the outputs of several targets into the order of the rows of one linear layer; zeros for those without.

    Args:
        parts: [s, b, groups * width] by target.
        widths: rows of each target within a group; with widths {q: 2, k: 1, v: 1} and two groups the order is
            q0 q1 k0 v0 q2 q3 k1 v1.

    Returns:
        [s, b, groups * sum of widths].
    """
    if len(widths) == 1:
        return next(iter(parts.values()))
    target, some = next(iter(parts.items()))
    lead, groups = some.shape[:-1], some.shape[-1] // widths[target]
    blocks = [
        parts[name].reshape(*lead, groups, width) if name in parts else some.new_zeros(*lead, groups, width)
        for name, width in widths.items()
    ]
    return torch.cat(blocks, dim=-1).flatten(-2)


def draw(name: str, rank: int, inputs: int, seed: int) -> torch.Tensor:
    """A's first values, float32[rank, inputs]: uniform within 1 / sqrt(inputs), which is PEFT's Kaiming start.

    Args:
        name: of the linear layer; with `seed` all that the values depend on.
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    bound = 1 / math.sqrt(inputs)
    return torch.empty(rank, inputs, dtype=torch.float32, device="cpu").uniform_(-bound, bound, generator=generator)


def attach(model: Any, lora: Lora, *, seed: int) -> None:
    """Freeze a model and give its linear layers adapters.

    Args:
        model: this rank's part of Megatron's GPTModel, with its weights.
        seed: for A; the adapters' B is zero, so the model's outputs stay what they are.
    """
    model.requires_grad_(False)
    if hasattr(model, "embedding"):
        model.embedding.register_forward_hook(_require_gradient)
    for layer in model.decoder.layers:
        for path, targets in LINEARS.items():
            wanted = [target for target in targets if target in lora.targets]
            if wanted:
                linear = layer.get_submodule(path)
                names = {target: lora.module(layer.layer_number - 1, target) for target in wanted}
                linear.add_module("lora", Adapter(linear, names, lora=lora, config=model.config, seed=seed))
                linear.register_forward_hook(_add_adapter)


def _add_adapter(linear: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> tuple[Any, Any]:
    """Forward hook of a linear layer, which returns (output, bias)."""
    return output[0] + linear.lora(inputs[0]), output[1]


def _require_gradient(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """Forward hook of the embedding: full recomputation computes gradients only where an input wants one.

    With every weight before them frozen the layers' input wants none, and a checkpointed layer then gives its
    adapters no gradient at all, without a word.
    """
    return output.requires_grad_()


def pairs(model: Any) -> Iterator[Pair]:
    """Every pair of this rank's part of a model."""
    for module in model.modules():
        if isinstance(module, Adapter):
            yield from module.pairs.values()


def _tensor_rank() -> int:
    return int(parallel_state.get_tensor_model_parallel_rank())
