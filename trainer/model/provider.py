"""The model: Megatron's GPTModel from Megatron's own flags.

As Megatron-LM's `pretrain_gpt.py` and `gpt_builders.py` build it (those two are not in the wheel), except that they
parse --rope-scaling-factor and never pass it on.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from functools import cache
from typing import Any

from sft_shards.trainer.isolation.kernels import TE, missing
from sft_shards.trainer.mcore import compat


def model_provider(
    pre_process: bool = True,
    post_process: bool = True,
    vp_stage: int | None = None,
    config: Any = None,
    pg_collection: Any = None,
    attention: str = "sdpa",
    **_: Any,
) -> Any:
    """Build this rank's part of the model.

    Args:
        pre_process: it holds the embedding (first pipeline stage).
        post_process: it holds the output layer and returns losses (last pipeline stage).
        vp_stage: its virtual pipeline stage.
        attention: which of `isolation.kernels.KERNELS` layers without Transformer Engine call.
    """
    from megatron.core.models.gpt import GPTModel
    from megatron.training import get_args

    from sft_shards.trainer.mcore import trained_logits

    args = get_args()
    config = config if config is not None else compat.transformer_config(args)
    optional = {"vp_stage": vp_stage, "pg_collection": pg_collection, "rope_scaling_factor": args.rope_scaling_factor}
    model = GPTModel(
        config=config,
        transformer_layer_spec=layer_spec(args, config, vp_stage, attention),
        vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        fp16_lm_cross_entropy=args.fp16_lm_cross_entropy,
        parallel_output=True,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type,
        rotary_percent=args.rotary_percent,
        rotary_base=args.rotary_base,
        rope_scaling=args.use_rope_scaling,
        **compat.accepted(GPTModel.__init__, optional),
    )
    if post_process and trained_logits.supports(args):
        trained_logits.install(model)
    return model


def layer_spec(args: Namespace, config: Any, vp_stage: int | None, attention: str) -> Any:
    """What a layer is made of: Transformer Engine's modules where asked for and installed, else Megatron's own.

    Megatron's own core attention takes no packed rows; ours takes its place.
    """
    from megatron.core.models.gpt import gpt_layer_specs as specs

    engine = args.transformer_impl == "transformer_engine" and not missing(TE)
    if not engine:
        allow_torch_norms()
    if args.num_experts:
        optional = {"normalization": args.normalization, "vp_stage": vp_stage}
        block = specs.get_gpt_decoder_block_spec
        made = block(config, use_transformer_engine=engine, **compat.accepted(block, optional))
        return made if engine else with_attention(made, attention)
    make = specs.get_gpt_layer_with_transformer_engine_spec if engine else specs.get_gpt_layer_local_spec
    optional = {
        "qk_layernorm": config.qk_layernorm,
        "multi_latent_attention": config.multi_latent_attention,
        "normalization": args.normalization,
    }
    made = make(**compat.accepted(make, optional))
    return made if engine else with_attention(made, attention)


def with_attention(spec: Any, kernel: str) -> Any:
    """Put our core attention into the specification of a layer, or of a block of layers."""
    from sft_shards.trainer.mcore.core_attention import core_attention

    for layer in getattr(spec, "layer_specs", None) or [spec]:
        layer.submodules.self_attention.submodules.core_attention = core_attention(kernel)
    return spec


@cache
def allow_torch_norms() -> None:
    """Let Megatron's wrapper of torch's norms (its only RMSNorm without Transformer Engine) take what is asked of
    others: it refuses sequence parallelism, for which its parameters lack a mark and no more, and Apex's persistent
    kernel, which is a matter of speed and the default."""
    from megatron.core.transformer import torch_norm

    kind: Any = torch_norm.WrappedTorchNorm
    plain = kind.__new__

    def made(cls: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        alone = copy.copy(config)
        alone.sequence_parallel = alone.persist_layer_norm = False
        norm = plain(cls, alone, *args, **kwargs)
        for parameter in norm.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # its gradient is summed over the tensor ranks
        return norm

    kind.__new__ = staticmethod(made)
