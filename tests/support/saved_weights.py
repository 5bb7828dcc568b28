"""Every parameter in a `torch_dist` checkpoint: whole tensors, whatever the layout that saved them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def saved_weights(folder: Path, step: int) -> dict[str, np.ndarray]:
    """The parameters that a run saved after a step, by their places in the model."""
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    (path,) = folder.glob(f"iter_{step:07d}")
    entries = FileSystemReader(path).read_metadata().state_dict_metadata
    wanted = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata) and not name.startswith(("optimizer", "rng", "rerun"))
    }
    load(wanted, checkpoint_id=path, no_dist=True)
    return {name: tensor.numpy() for name, tensor in wanted.items() if tensor.is_floating_point()}
