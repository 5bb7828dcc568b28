"""A Hugging Face model folder: its safetensors files, checked by their headers, and read row by row.

    folder = ModelFolder.open("models/Llama-3.1-8B")
    folder.check(TensorMap(hf_config.read("models/Llama-3.1-8B")))
    folder.rows("model.layers.0.mlp.down_proj.weight", 0, 4096, slice(0, 1792))

Files are memory-mapped by the safetensors library, so that the ranks of a node share one copy in the page cache and
no rank reads more than it asks for. On a network file system each page is a request of its own; `rows` is the one
place where another way of reading would go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.model.tensor_map import HF_OUTPUT, TensorMap

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES = {"F32": 4, "BF16": 2, "F16": 2}
"""Those that weights may have, as headers spell them, and their bytes."""
QUANTISED = re.compile(r"(weight_scale(_inv)?|input_scale|qweight|qzeros|scales|g_idx|absmax|quant_state\S*)$")
"""Ends of the names of tensors that quantised weights come with."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor as the header of its file describes it."""

    file: Path
    dtype: str
    """As safetensors spells it: BF16, F32, …"""
    shape: tuple[int, ...]


class ModelFolder:
    """The tensors in a folder."""

    def __init__(self, path: Path, tensors: Mapping[str, Stored], files: Mapping[Path, Any]) -> None:
        self.path, self.tensors, self._files = path, tensors, files

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Map the files of a folder and read their headers.

        Raises:
            UsageError: no folder, or none of safetensors.
            DataError: a file is missing, truncated, not of that format, or not what the index says.
        """
        folder = Path(path)
        where = _weight_map(folder)
        names = sorted(set(where.values())) if where is not None else [SINGLE]
        files = {folder / name: _mapped(folder / name) for name in names}
        tensors: dict[str, Stored] = {}
        for file, mapped in files.items():
            for name in sorted(mapped.keys()):
                if where is not None and where.get(name) != file.name:
                    raise DataError(
                        f"{file}: holds {name}, which {INDEX} puts into {where.get(name)}; fetch the model again"
                    )
                part = mapped.get_slice(name)
                tensors[name] = Stored(file=file, dtype=part.get_dtype(), shape=tuple(part.get_shape()))
        lost = sorted(set(where or ()) - set(tensors))
        if lost:
            assert where is not None
            raise DataError(f"{folder / where[lost[0]]}: {_named(lost)} not in it, against {INDEX}; fetch it again")
        return cls(folder, tensors, files)

    @cached_property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(DTYPES.get(each.dtype, 0) * _numel(each.shape) for each in self.tensors.values())

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Which dtypes occur, as headers spell them."""
        return tuple(sorted({each.dtype for each in self.tensors.values()}))

    def check(self, tensors: TensorMap) -> None:
        """Compare every tensor with what the model needs, by headers alone.

        Raises:
            DataError: a tensor is missing, is of no use to the model, or has another shape or dtype.
        """
        wanted = tensors.hf_shapes()
        config = Path(tensors.shape.path).name
        missing = [name for name in wanted if name not in self.tensors]
        if missing:
            raise DataError(
                f"{self.path}: {_named(missing)} missing, which {config} tells of; fetch the model again, or repair "
                f"{config}"
            )
        ignored = [re.compile(pattern) for pattern in tensors.architecture.ignored]
        for name, found in self.tensors.items():
            if name not in wanted and not any(pattern.fullmatch(name) for pattern in ignored):
                if tensors.tied and name == HF_OUTPUT:
                    continue  # compared with the embedding when that is read
                self._refuse(name, found, config)
        for name, shape in wanted.items():
            found = self.tensors[name]
            if found.dtype not in DTYPES:
                raise DataError(
                    f"{found.file}: {name} is {found.dtype}, weights are taken in {', '.join(DTYPES)}; use the model "
                    "before quantisation"
                )
            if found.shape != shape:
                raise DataError(
                    f"{found.file}: {name} is {list(found.shape)}, by {config} it is {list(shape)}; "
                    "one of them is of another model"
                )

    def _refuse(self, name: str, found: Stored, config: str) -> None:
        if QUANTISED.search(name):
            raise DataError(
                f"{found.file}: {name} belongs to quantised weights (FP8, GPTQ, AWQ …); use the model in bfloat16"
            )
        others = sum(1 for each in self.tensors if each.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]) - 1
        raise DataError(
            f"{found.file}: {name} is a tensor that {config} does not tell of"
            f"{f' ({others} others end alike)' if others and name.endswith('.bias') else ''}; "
            "training without it would be another model"
        )

    def rows(self, name: str, start: int, stop: int, columns: slice | None = None) -> Any:
        """Rows of a tensor, in the dtype of the file, on the CPU.

        Args:
            start, stop: rows.
            columns: of a tensor with two axes; None: it has one.

        Returns:
            torch.Tensor[stop - start, columns] or [stop - start]; it may be a view of the mapped file.
        """
        part = self._files[self.tensors[name].file].get_slice(name)
        return part[start:stop] if columns is None else part[start:stop, columns]


def _weight_map(folder: Path) -> dict[str, str] | None:
    """Tensor to file, from the index; None where there is one file and no index.

    Raises:
        UsageError: there is neither.
        DataError: the index is damaged, or names a file outside the folder.
    """
    index = folder / INDEX
    if not index.is_file():
        if (folder / SINGLE).is_file():
            return None
        what = "no such folder" if not folder.is_dir() else f"neither {SINGLE} nor {INDEX} in it"
        old = folder.is_dir() and any(folder.glob("*.bin"))
        remedy = "save the model again as safetensors" if old else "name the folder of a Hugging Face model"
        raise UsageError(f"--model {folder}: {what}; {remedy}")
    try:
        found = json.loads(index.read_text("utf-8"))["weight_map"]
        whole = bool(found) and all(isinstance(name, str) for pair in found.items() for name in pair)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DataError(f"{index}: no weight_map of names in it; fetch the model again")
    strange = sorted({name for name in found.values() if Path(name).name != name or name in ("", ".", "..")})
    if strange:
        raise DataError(f"{index}: names {strange[0]!r}, a file outside the folder; fetch the model again")
    return dict(found)


def _mapped(file: Path) -> Any:
    """A safetensors file, mapped into memory; the library checks that header and length agree."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(file), framework="pt")
    except FileNotFoundError:
        raise DataError(f"{file}: the index names it, and it is not there; fetch the model again") from None
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{file}: not a whole safetensors file ({reason}); fetch it again") from None


def _named(names: Iterable[str]) -> str:
    """Tensors for a message: `a is`, or `a, b and 5 others are`."""
    first, *others = names
    if not others:
        return f"{first} is"
    return f"{first}, {others[0]} are" if len(others) == 1 else f"{first}, {others[0]} and {len(others) - 1} more are"


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
