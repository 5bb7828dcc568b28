"""Export of a run with LoRA: a PEFT folder with the adapter, or the base model with the adapter added in.

    adapter_config.json, adapter_model.safetensors    what PEFT, vLLM and others load beside the base
    tokenizer, chat template, generation_config.json  as it was trained, the template's stop tokens first

A checkpoint of adapters holds PEFT's own tensors (`sft_shards.trainer.model.adapter_checkpoint`), so the folder is a
copy. Merging computes W + alpha / rank * B A in float32 and rounds once, to the dtype of the export; it reads the base
again, tensor by tensor, and takes the memory of about two of its tensors in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards.files import write_json
from sft_shards.trainer.model.checkpoint import Checkpoint
from sft_shards.trainer.model.export_folder import (
    DTYPES,
    Block,
    Exported,
    check_output,
    copy_beside,
    new_folder,
    write_folder,
)
from sft_shards.trainer.model.folder import ModelFolder
from sft_shards.trainer.model.lora import Lora
from sft_shards.trainer.model.sidecar import Sidecar
from sft_shards.trainer.model.tensor_map import TensorMap

PREFIX = "base_model.model."
"""What PEFT puts in front of the name of a module in the base."""


def export(
    checkpoint: Checkpoint,
    sidecar: Sidecar,
    tensors: TensorMap,
    beside: Path,
    target: Path,
    *,
    dtype: str | None,
    merge: bool,
    base: str | None,
) -> Exported:
    """Write the adapters in a checkpoint as a PEFT folder, or merged into their base as a whole model.

    Args:
        sidecar, tensors, beside: what was written beside the checkpoint; `tensors` are the base's.
        dtype: of `DTYPES`; None: as the checkpoint holds them.
        merge: write the whole model.
        base: its folder; None: where it was when training started.

    Raises:
        UsageError: the base is not there.
        DataError: the checkpoint or the base is damaged or of another model, or the disk is full.
    """
    assert sidecar.adapter is not None, "checked: the checkpoint holds adapters"
    adapters = Adapters(checkpoint, sidecar.adapter, tensors)
    where = base or sidecar.base
    if not merge:
        target = target.absolute()
        with new_folder(target) as folder:
            size = adapters.write(folder, where, dtype=dtype)
            copy_beside(beside, folder)
        return Exported(folder=target, tensors=len(checkpoint.tensors), bytes=size)
    if not Path(where).is_dir():
        raise UsageError(f"--merge: the base model is no longer in {where}; say where it is, by --model DIR")
    check_output(target, Path(where))
    model = ModelFolder.open(where)
    model.check(tensors)
    return write_folder(MergedWeights(adapters, model, tensors), beside, target, dtype=dtype)


class Adapters:
    """The adapters in a checkpoint, checked to be whole."""

    def __init__(self, checkpoint: Checkpoint, lora: Lora, tensors: TensorMap) -> None:
        """Compare what the checkpoint holds with the model and with what was written beside it.

        Raises:
            DataError: a tensor is missing, of another shape, or not of an adapter.
        """
        self.checkpoint, self.lora = checkpoint, lora
        self.modules = [lora.module(layer, target) for layer in range(tensors.layers) for target in lora.targets]
        """Linear layers of the Hugging Face model that have an adapter."""
        self.dtype = next(iter(checkpoint.tensors.values())).dtype
        """A torch.dtype, as the adapters were trained."""
        shapes = tensors.hf_shapes()
        expected = {}
        for module in self.modules:
            rows, columns = shapes[f"{module}.weight"]
            expected[f"{module}.lora_A.weight"] = (lora.rank, columns)
            expected[f"{module}.lora_B.weight"] = (rows, lora.rank)
        held = {name: saved.shape for name, saved in checkpoint.tensors.items()}
        for name in sorted(expected.keys() | held.keys()):
            if held.get(name) != expected.get(name):
                found = f"has shape {list(held[name])}" if name in held else "is missing"
                wanted = f"{list(expected[name])} is expected" if name in expected else "which no adapter has"
                raise DataError(f"{checkpoint.folder}: {name} {found}, {wanted}; export an earlier step (--step)")

    def write(self, folder: Path, base: str, *, dtype: str | None) -> int:
        """Write `adapter_model.safetensors` and `adapter_config.json` into a folder.

        Args:
            base: the base model's folder.
            dtype: as for `export`.

        Returns:
            Bytes of all tensors.
        """
        import torch
        from safetensors.torch import save_file

        wanted = self.dtype if dtype is None else getattr(torch, DTYPES[dtype])
        names = self.checkpoint.tensors
        values = {f"{PREFIX}{name}": self.checkpoint.read(name).to(wanted).contiguous() for name in names}
        save_file(values, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(folder / "adapter_config.json", self._config(base))
        return sum(value.nbytes for value in values.values())

    def _config(self, base: str) -> dict[str, Any]:
        lora = self.lora
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": lora.rank,
            "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": sorted({module.rsplit(".", 1)[1] for module in self.modules}),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "modules_to_save": None,
            "use_dora": False,
            "use_rslora": False,
        }


class MergedWeights:
    """A base model with adapters added in: a source for `sft_shards.trainer.model.export.write_folder`."""

    def __init__(self, adapters: Adapters, base: ModelFolder, tensors: TensorMap) -> None:
        """Take the base's tensors as those of the export.

        Args:
            base: checked against `tensors`.
        """
        self.adapters, self.base = adapters, base
        self.shapes = tensors.hf_shapes()
        self.dtype = adapters.dtype

    def blocks(self) -> Iterator[Block]:
        """Tensor after tensor, those with an adapter in float32."""
        import torch

        adapted = {f"{module}.weight": module for module in self.adapters.modules}
        for name, shape in self.shapes.items():
            values = self.base.rows(name, 0, shape[0], None)
            if name in adapted:
                a, b = (self.adapters.checkpoint.read(f"{adapted[name]}.lora_{part}.weight").float() for part in "AB")
                values = torch.addmm(values.float(), b, a, alpha=self.adapters.lora.scaling)
            yield Block(name=name, start=0, values=values)
