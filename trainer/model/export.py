"""From a Megatron checkpoint to a Hugging Face folder: the one entry, for all weights and for adapters.

A checkpoint of all weights is a `Source` by itself; one of adapters becomes a PEFT folder, or is a `Source` together
with its base. Tensors are read, cut and written one at a time, so that memory holds about two of them whatever the
model; `sft_shards.trainer.model.export_folder` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.model import adapter_export, adapter_resume, hf_config, sidecar
from sft_shards.trainer.model.checkpoint import Checkpoint, model_tensors
from sft_shards.trainer.model.export_folder import Block, Exported, check_output, write_folder
from sft_shards.trainer.model.tensor_map import VOCABULARY, Tensor, TensorMap


class FullWeights:
    """All weights, from a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, tensors: TensorMap) -> None:
        """Compare every tensor in the checkpoint with what the model has.

        Raises:
            DataError: one is missing, of no use to the model, or of another shape.
        """
        self.checkpoint, self.tensors = checkpoint, tensors
        self.shapes = tensors.hf_shapes()
        config = tensors.shape.path
        saved = dict(model_tensors(checkpoint))
        where: dict[str, tuple[str, tuple[int, ...]]] = {}
        for key, found in saved.items():
            ahead = tensors.leading(key)
            first = tensors.find(key, (0,) * len(ahead))
            if first is None:
                raise DataError(
                    f"{checkpoint.folder}: holds {key}, which {config} does not tell of; it is of another model"
                )
            own, theirs = first.shape, found.shape[len(ahead) :]
            fits = own == theirs or (key in VOCABULARY and theirs[1:] == own[1:] and theirs[0] >= own[0])
            if found.shape[: len(ahead)] != ahead or not fits:
                raise DataError(
                    f"{checkpoint.folder}: {key} is {list(found.shape)}, by {config} it is {[*ahead, *own]}; "
                    "give the folder of its own model"
                )
            for indices in _every(ahead):
                tensor = tensors.find(key, indices)
                assert tensor is not None
                name = tensor.rows[0].name
                if name not in self.shapes:
                    raise DataError(
                        f"{checkpoint.folder}: {key} holds {name}, which by {config} is no tensor of the model"
                    )
                where[name] = (key, indices)
        self._places: list[tuple[Tensor, str, tuple[int, ...]]] = []
        for tensor in tensors.tensors():
            place = where.get(tensor.rows[0].name)
            if place is None:
                raise DataError(f"{checkpoint.folder}: nothing in it for {tensor.rows[0].name}; it is of another model")
            self._places.append((tensor, *place))
        self.dtype = next(iter(saved.values())).dtype

    def blocks(self) -> Iterator[Block]:
        """Tensor after tensor as the checkpoint holds them, cut into rows."""
        for tensor, key, indices in self._places:
            values = self.checkpoint.read(key, indices)
            for part in tensor.rows:
                yield Block(name=part.name, start=part.start, values=values[part.at : part.at + part.count])


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    step: int | None = None,
    dtype: str | None = None,
    merge: bool = False,
    model: str | None = None,
) -> Exported:
    """Write a checkpoint as a Hugging Face folder.

    Args:
        checkpoint: what --save named, or one `iter_…` folder in it.
        output: must not be there, or be empty.
        step: which iteration; None: the last.
        dtype: of `DTYPES`; None: as the checkpoint holds them.
        merge: of adapters: add them to the base.
        model: a folder with config.json and tokenizer, where none was written beside the checkpoint; of adapters,
            the base, where it is no longer where it was.

    Raises:
        UsageError: the call is wrong.
        DataError: the checkpoint is damaged or of another model, or the disk is full.
    """
    target = Path(output)
    opened = Checkpoint.open(checkpoint, step=step)
    written = sidecar_folder(opened.folder)
    adapters = adapter_resume.holds_adapters(opened)
    beside = Path(model) if model is not None and not adapters else written
    said = sidecar.read(beside) if beside == written else None
    check_output(target, opened.folder, beside)
    tensors = TensorMap(hf_config.read(str(beside), option="--model"))
    if adapters:
        assert said is not None
        return adapter_export.export(opened, said, tensors, beside, target, dtype=dtype, merge=merge, base=model)
    if merge:
        raise UsageError(f"--merge: {opened.folder} holds all weights, and no adapters to merge; leave it out")
    return write_folder(FullWeights(opened, tensors), beside, target, dtype=dtype)


def sidecar_folder(step: Path) -> Path:
    """`SAVE/hf` of one step's folder."""
    return (step.parent if step.name.startswith("iter_") or step.name == "release" else step) / sidecar.FOLDER


def _every(sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All index tuples of axes of these sizes; one empty tuple where there are none."""
    if not sizes:
        yield ()
        return
    for number in range(sizes[0]):
        for rest in _every(sizes[1:]):
            yield (number, *rest)
