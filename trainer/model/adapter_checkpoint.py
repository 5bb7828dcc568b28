"""Checkpoints of a run with LoRA hold the adapters and their optimizer state, and nothing of the base.

The base is read from the model's folder at every start, so a checkpoint of a 70B model takes gigabytes less, and is
written in seconds. Its tensors are PEFT's own, by name and by shape (`model.layers.3.self_attn.q_proj.lora_A.weight`),
whatever layout wrote it: export copies them, and a run on another layout takes the slices that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing import ShardedTensor

from sft_shards.formats.errors import DataError
from sft_shards.trainer.model.adapters import Pair, pairs


def save_adapters_only(model: Any) -> None:
    """Have Megatron save and load the adapters of this rank's part of a model, in either checkpoint format.

    Megatron asks the model for `sharded_state_dict` (torch_dist) or `state_dict_for_save_checkpoint` (torch), and
    hands what it loaded to `load_state_dict`; these three are answered here, on the instance.
    """
    known = list(pairs(model))

    def sharded_state_dict(prefix: str = "", *_: Any, **__: Any) -> dict[str, Any]:
        return {key: value for pair in known for key, value in _sharded(pair)}

    def state_dict_for_save_checkpoint(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return {key: value.detach() for pair in known for key, value in _named(pair)}

    def load_state_dict(state: dict[str, Any], strict: bool = True, **_: Any) -> None:
        with torch.no_grad():
            for pair in known:
                for key, value in _named(pair):
                    if key not in state or state[key].shape != value.shape:
                        raise DataError(f"the checkpoint has no {key} of shape {list(value.shape)}")
                    value.copy_(state[key])

    model.sharded_state_dict = sharded_state_dict
    model.state_dict_for_save_checkpoint = state_dict_for_save_checkpoint
    model.load_state_dict = load_state_dict


def _named(pair: Pair) -> Iterable[tuple[str, torch.nn.Parameter]]:
    return (f"{pair.name}.lora_A.weight", pair.a), (f"{pair.name}.lora_B.weight", pair.b)


def _sharded(pair: Pair) -> Iterable[tuple[str, Any]]:
    """A and B with their place in the whole tensor: A's columns or B's rows are cut over the tensor ranks."""
    rank, ranks = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
    data = parallel_state.get_data_parallel_rank(with_context_parallel=True)
    for key, value in _named(pair):
        is_cut = (value is pair.a) == pair.row_parallel
        if is_cut:
            place = (1 if value is pair.a else 0, rank, ranks)
            yield key, ShardedTensor.from_rank_offsets(key, value, place, replica_id=(0, 0, data))
        else:
            yield key, ShardedTensor.from_rank_offsets(key, value, replica_id=(0, rank, data))
