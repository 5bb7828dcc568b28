"""Model folders for tests, written by safetensors itself: a config.json and a tensor for each that it tells of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sft_shards.trainer.model import hf_config
from sft_shards.trainer.model.tensor_map import TensorMap

TINY = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 12,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 120, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


NOTE = {"format": "pt"}
"""What transformers writes into the header."""


def shapes(**change: Any) -> dict[str, tuple[int, ...]]:
    return TensorMap(hf_config.model_shape({**TINY, **change}, "config.json")).hf_shapes()


def write(folder: Path, *, files: int = 1, dtype: str = "bfloat16", tensors: Any = None, **change: Any) -> Path:
    """A folder; `tensors` replaces what would be written, in as many files as asked."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY, **change}))
    if tensors is None:
        torch.manual_seed(0)
        tensors = {name: torch.randn(shape).to(getattr(torch, dtype)) for name, shape in shapes(**change).items()}
    names = sorted(tensors)
    parts = [names[number::files] for number in range(files)]
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata=NOTE)
        return folder
    where = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-{files:05d}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata=NOTE)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder
