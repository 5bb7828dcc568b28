"""torch_dist checkpoints of the tiny Llama of `hf_folders`, written by torch itself in the form that Megatron gives them.

Layers are named (`decoder.layers.1.…`), as Megatron does where layers differ; q, k and v are joined by group with
torch's own reshaping, and not by the map that is tested.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import hf_folders


def megatron(theirs: dict[str, Any], *, padded: int | None = None) -> dict[str, Any]:
    """Transformers' tensors by Megatron's names, the vocabulary padded with zeros to so many rows."""
    import torch

    groups = hf_folders.TINY["num_key_value_heads"]
    ours = {
        "embedding.word_embeddings.weight": theirs["model.embed_tokens.weight"],
        "decoder.final_layernorm.weight": theirs["model.norm.weight"],
        "output_layer.weight": theirs["lm_head.weight"],
    }
    for name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        rows = max(padded or 0, ours[name].shape[0])
        more = torch.zeros(rows - ours[name].shape[0], ours[name].shape[1], dtype=ours[name].dtype)
        ours[name] = torch.cat([ours[name], more])
    for layer in range(hf_folders.TINY["num_hidden_layers"]):
        old, new = f"model.layers.{layer}.", f"decoder.layers.{layer}."
        parts = [theirs[f"{old}self_attn.{name}_proj.weight"] for name in "qkv"]
        joined = torch.cat([part.reshape(groups, -1, part.shape[-1]) for part in parts], dim=1)
        ours[f"{new}self_attention.linear_qkv.weight"] = joined.reshape(-1, joined.shape[-1])
        ours[f"{new}self_attention.linear_proj.weight"] = theirs[f"{old}self_attn.o_proj.weight"]
        ours[f"{new}self_attention.linear_qkv.layer_norm_weight"] = theirs[f"{old}input_layernorm.weight"]
        ours[f"{new}mlp.linear_fc1.layer_norm_weight"] = theirs[f"{old}post_attention_layernorm.weight"]
        gate, up = (theirs[f"{old}mlp.{name}_proj.weight"] for name in ("gate", "up"))
        ours[f"{new}mlp.linear_fc1.weight"] = torch.cat([gate, up])
        ours[f"{new}mlp.linear_fc2.weight"] = theirs[f"{old}mlp.down_proj.weight"]
    return ours


def write(save: Path, tensors: dict[str, Any], *, step: int = 1) -> Path:
    """A step below `save`, with what else Megatron writes beside it."""
    import torch.distributed.checkpoint as dcp

    folder = save / f"iter_{step:07d}"
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(tensors, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1}))
    (save / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def with_record(save: Path, model: Path) -> None:
    """`SAVE/hf`, as training writes it."""
    (save / "hf").mkdir(parents=True, exist_ok=True)
    (save / "hf/config.json").write_bytes((model / "config.json").read_bytes())
    (save / "hf/generation_config.json").write_text('{"eos_token_id": [0, 5]}')
    record = {"base": str(model), "architecture": "LlamaForCausalLM", "shards": ["s"], "stop": ["t0"], "adapter": None}
    (save / "hf/sft.json").write_text(json.dumps({**record, "schema": 1}))
