"""Fill a Megatron model from a Hugging Face folder: each rank reads its own rows, one parameter at a time.

`GPTModel.sharded_state_dict()` says of every parameter which slice of which whole tensor it is, on every layout and
for every implementation of a layer; `tensor_map` says which Hugging Face rows that slice consists of. So nothing
here knows of ranks. It runs inside the model provider: Megatron copies its main parameters (float32, for the
optimizer) from the model later, and they follow by themselves.

Example: with TP 2, rank 1's part of `linear_proj.weight` [4, 6] is offset (0, 3), shape (4, 3). Its rows 0 to 4 are
rows 0 to 4 of `o_proj.weight`, of which columns 3 to 6 are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from sft_shards.formats.errors import DataError
from sft_shards.trainer.model.folder import ModelFolder
from sft_shards.trainer.model.tensor_map import HF_EMBEDDING, HF_OUTPUT, VOCABULARY, Rows, TensorMap


def fill(model: Any, folder: ModelFolder, tensors: TensorMap) -> None:
    """Copy the folder's values into the parameters of this rank's part of a model.

    Args:
        model: a GPTModel as built, before it is wrapped; its parameters may have any dtype, values are cast.
        folder: checked against `tensors`.

    Raises:
        DataError: the model has a parameter that the folder has nothing for, or of another size.
    """
    import torch

    filled = set()
    with torch.no_grad():
        for item in _sharded(model):
            build = getattr(item, "build", None)
            if build is not None:  # a tensor that is stored as several, such as gate and up
                value = item.merge_fn([_read(part, folder, tensors) for part in build()])
            else:
                value = _read(item, folder, tensors)
            assert value.shape == item.data.shape, (item.key, value.shape, item.data.shape)
            item.data.copy_(value)
            filled.add(item.data.data_ptr())
    empty = [name for name, parameter in model.named_parameters() if parameter.data_ptr() not in filled]
    if empty:
        raise DataError(f"{folder.path}: nothing in it for {empty[0]}, which Megatron's model has; use another release")


def _sharded(model: Any) -> Iterator[Any]:
    """The tensors in a model's sharded state (its other entries are objects such as the scales of FP8)."""
    for item in model.sharded_state_dict().values():
        if getattr(item, "data", None) is not None and hasattr(item.data, "data_ptr"):
            yield item


def _read(item: Any, folder: ModelFolder, tensors: TensorMap) -> Any:
    """The values of a Megatron ShardedTensor, float, on the CPU.

    Raises:
        DataError: the model has no such tensor, or one of another shape.
    """
    import torch

    leading = tensors.leading(item.key)
    ahead, prepended = len(leading), item.prepend_axis_num
    local = (*(1 for _ in range(prepended)), *item.local_shape)  # as many axes as the whole tensor
    offset = item.global_offset
    parts = []
    for indices in product(*(range(offset[axis], offset[axis] + local[axis]) for axis in range(ahead))):
        tensor = tensors.find(item.key, indices)
        if tensor is None:
            raise DataError(f"{folder.path}: nothing in it for Megatron's {item.key}; use another release of Megatron")
        whole, own = item.global_shape[ahead:], tensor.shape
        padded = item.key in VOCABULARY and whole[0] >= own[0]
        if item.global_shape[:ahead] != leading or whole[1:] != own[1:] or (whole[0] != own[0] and not padded):
            raise DataError(
                f"{folder.path}: Megatron's {item.key} is {list(item.global_shape)}, by config.json it is "
                f"{[*leading, *own]}; this is a bug or a flag that changes the model"
            )
        start, stop = offset[ahead], offset[ahead] + local[ahead]
        columns = slice(offset[ahead + 1], offset[ahead + 1] + local[ahead + 1]) if len(own) == 2 else None
        value = torch.zeros(local[ahead:], dtype=item.dtype)  # the rows of the padding stay 0
        for part in tensor.part(start, stop):
            read = folder.rows(part.name, part.start, part.start + part.count, columns)
            value[part.at : part.at + part.count] = read
            _same_output(part, read, columns, folder, tensors)
        parts.append(value)
    return torch.stack(parts).reshape(item.local_shape) if len(parts) > 1 else parts[0].reshape(item.local_shape)


def _same_output(part: Rows, read: Any, columns: slice | None, folder: ModelFolder, tensors: TensorMap) -> None:
    """A folder with tied embeddings may hold the output layer as well; DataError where it is not the embedding."""
    if not tensors.tied or part.name != HF_EMBEDDING or HF_OUTPUT not in folder.tensors:
        return
    import torch

    if folder.tensors[HF_OUTPUT].shape != folder.tensors[HF_EMBEDDING].shape or not torch.equal(
        folder.rows(HF_OUTPUT, part.start, part.start + part.count, columns), read
    ):
        raise DataError(
            f"{folder.path}: tie_word_embeddings is true, and {HF_OUTPUT} is not {HF_EMBEDDING}; repair config.json"
        )
