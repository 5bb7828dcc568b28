"""From a Megatron checkpoint to a Hugging Face folder.

    checkpoint ──Source──▶ rows of tensors ──SafetensorsWriter──▶ files, then tokenizer, then config.json, then a rename

A `Source` says which tensors there are and yields their rows; that of all weights reads a checkpoint alone, that of
merged adapters a base folder as well. Tensors are read, cut and written one at a time, so that memory holds about two
of them whatever the model. The folder appears under its name when it is complete: a process that is killed leaves
`.NAME.partial`, which the next export to the same place replaces.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards.files import fsync_directory, write_json
from sft_shards.trainer.model import hf_config, record
from sft_shards.trainer.model.checkpoint import Checkpoint, model_tensors
from sft_shards.trainer.model.safetensors_writer import SafetensorsWriter
from sft_shards.trainer.model.tensor_map import VOCABULARY, Tensor, TensorMap

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
"""What --dtype takes, and torch's names."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive rows of a Hugging Face tensor."""

    name: str
    start: int
    """First row."""
    values: Any
    """torch.Tensor[rows, columns] or [rows]."""


class Source(Protocol):
    """Where the tensors of an exported model come from."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of all Hugging Face tensors."""
        ...

    @property
    def dtype(self) -> Any:
        """A torch.dtype, as the weights were trained."""
        ...

    def blocks(self) -> Iterator[Block]:
        """All rows of all tensors, each once, in any order."""
        ...


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


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written."""

    folder: Path
    tensors: int
    bytes: int
    """Of all tensors."""


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
        model: a folder with config.json and tokenizer, where none was written beside the checkpoint.

    Raises:
        UsageError: the call is wrong.
        DataError: the checkpoint is damaged or of another model, or the disk is full.
    """
    target = Path(output)
    opened = Checkpoint.open(checkpoint, step=step)
    beside = Path(model) if model is not None else portrait(opened.folder)
    if model is None:
        record.read(beside)
    check_output(target, opened.folder, beside)
    shape = hf_config.read(str(beside), option="--model")
    if merge:
        raise UsageError(f"--merge: {opened.folder} holds all weights, and no adapters to merge; leave it out")
    return write_folder(FullWeights(opened, TensorMap(shape)), beside, target, dtype=dtype)


def portrait(step: Path) -> Path:
    """`SAVE/hf` of one step's folder."""
    return (step.parent if step.name.startswith("iter_") or step.name == "release" else step) / record.FOLDER


def check_output(target: Path, *inputs: Path) -> None:
    """UsageError where an export would write over something, or into what it reads."""
    for read in inputs:
        if target.exists() and target.resolve() == read.resolve():
            raise UsageError(f"--output {target}: is the folder that is read; name another one")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--output {target}: is there already; name another one, or remove it")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"--output {target}: {target.absolute().parent} is no folder; make it first")


def write_folder(source: Source, beside: Path, target: Path, *, dtype: str | None) -> Exported:
    """Write the tensors of a source with the files of `SAVE/hf`, and give the folder its name when it is complete.

    Raises:
        DataError: the disk is full, or another export is writing to the same place.
    """
    import torch

    wanted = source.dtype if dtype is None else getattr(torch, DTYPES[dtype])
    size = sum(_numel(shape) for shape in source.shapes.values()) * wanted.itemsize
    target = target.absolute()
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise DataError(f"{target.parent}: {free / 1e9:.1f} GB free, the model takes {size / 1e9:.1f} GB; make room")
    with _partial(target) as partial:
        with SafetensorsWriter(partial, source.shapes, wanted) as writer:
            for block in source.blocks():
                writer.write(block.name, block.start, block.values)
        for file in sorted(beside.iterdir()):
            if _belongs(file):
                shutil.copyfile(file, partial / file.name)
        config = json.loads((beside / "config.json").read_text("utf-8"))
        name = str(wanted).removeprefix("torch.")
        key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
        for file in partial.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        write_json(partial / "config.json", {**config, key: name})
    return Exported(folder=target, tensors=len(source.shapes), bytes=size)


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that becomes it; removed where something goes wrong."""
    partial = target.parent / f".{target.name}.partial"
    try:
        if not _locked(partial):  # left by one that was killed
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except FileExistsError:
        raise DataError(f"{partial}: another export is writing there; wait for it, or remove the folder") from None
    except OSError as error:
        raise DataError(f"{partial}: cannot be made ({error.strerror})") from None
    handle = os.open(partial, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every network file system has locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield partial
        fsync_directory(partial)
        os.rename(partial, target)  # over an empty folder too
        fsync_directory(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{target.parent}: the disk is full; nothing was kept") from None
        raise DataError(f"{partial}: cannot be written ({error.strerror}); nothing was kept") from error
    finally:
        os.close(handle)
        shutil.rmtree(partial, ignore_errors=True)


def _locked(folder: Path) -> bool:
    """Whether a running export holds the folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _belongs(file: Path) -> bool:
    """Whether a file beside a checkpoint, or in a model's folder, goes with the exported model."""
    if not file.is_file() or file.name in ("config.json", record.NAME) or file.name.startswith("."):
        return False
    return file.suffix in (".json", ".jinja", ".model", ".txt") and not file.name.endswith(".index.json")


def _every(sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All index tuples of axes of these sizes; one empty tuple where there are none."""
    if not sizes:
        yield ()
        return
    for number in range(sizes[0]):
        for rest in _every(sizes[1:]):
            yield (number, *rest)


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
