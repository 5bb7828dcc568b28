"""Layers with the names of Transformer Engine's, in plain torch: the norm is a parameter of the linear layer behind it.

Transformer Engine needs a GPU. What import and export see of it is the names in `sharded_state_dict`:
`linear_qkv.layer_norm_weight` for `input_layernorm.weight`, and in a dense MLP `linear_fc1.layer_norm_weight`.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch

from sft_shards.trainer.mcore import compat
from sft_shards.trainer.model.provider import allow_torch_norms, with_attention


def spec(args: Namespace, config: Any, vp_stage: int | None, attention: str) -> Any:
    """As `provider.layer_spec`; dense layers only."""
    from megatron.core.models.gpt import gpt_layer_specs
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear
    from megatron.core.transformer.identity_op import IdentityOp

    class LayerNormColumnParallelLinear(ColumnParallelLinear):
        """RMSNorm, then a column-parallel linear layer."""

        def __init__(self, *args: Any, config: Any, **kwargs: Any) -> None:
            super().__init__(*args, config=config, **kwargs)
            width = self.weight.shape[1]
            self.layer_norm_weight = torch.nn.Parameter(torch.ones(width, dtype=config.params_dtype))
            self.layer_norm_weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
            self.eps = config.layernorm_epsilon

        def forward(self, hidden: Any, *args: Any, **kwargs: Any) -> Any:
            wide = hidden.float()
            normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
            return super().forward(normed.to(hidden.dtype) * self.layer_norm_weight, *args, **kwargs)

    allow_torch_norms()
    make = gpt_layer_specs.get_gpt_layer_local_spec
    made = make(**compat.accepted(make, {"qk_layernorm": config.qk_layernorm, "normalization": args.normalization}))
    parts = made.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = IdentityOp
    parts.sharded_state_dict_keys_map = {}
    parts.self_attention.submodules.linear_qkv = LayerNormColumnParallelLinear
    mlp = getattr(parts.mlp, "submodules", None) or parts.mlp.keywords["submodules"]  # a partial from 0.18 on
    mlp.linear_fc1 = LayerNormColumnParallelLinear
    return with_attention(made, attention)
