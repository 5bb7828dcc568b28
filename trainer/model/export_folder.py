"""The folder that an export writes: weights, what is beside them, and a name when it is complete.

    Source ──rows──▶ SafetensorsWriter ──▶ files, then tokenizer and template, then config.json, then a rename

A `Source` says which tensors there are and yields their rows, one tensor at a time. The folder appears under its name
when it is complete: a process that is killed leaves `.NAME.partial`, which the next export to the same place replaces.
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
from sft_shards.formats.shards.manifest import TEMPLATES
from sft_shards.trainer.model import sidecar
from sft_shards.trainer.model.safetensors_writer import SafetensorsWriter

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


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written."""

    folder: Path
    tensors: int
    bytes: int
    """Of all tensors."""


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
    with new_folder(target) as partial:
        with SafetensorsWriter(partial, source.shapes, wanted) as writer:
            for block in source.blocks():
                writer.write(block.name, block.start, block.values)
        copy_beside(beside, partial)
        config = json.loads((beside / "config.json").read_text("utf-8"))
        name = str(wanted).removeprefix("torch.")
        key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
        write_json(partial / "config.json", {**config, key: name})
    return Exported(folder=target, tensors=len(source.shapes), bytes=size)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make an empty folder beside `target` that becomes it; it is removed where something goes wrong.

    Raises:
        DataError: the disk is full, or another export is writing to the same place.
    """
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


def copy_beside(beside: Path, target: Path) -> None:
    """Copy what goes with an exported model, and make all files in `target` durable.

    Args:
        beside: `SAVE/hf`, or a model's folder.
    """
    for file in sorted(beside.iterdir()):
        if _belongs(file):
            shutil.copyfile(file, target / file.name)
    if (beside / TEMPLATES).is_dir():
        shutil.copytree(beside / TEMPLATES, target / TEMPLATES)
    for file in (path for path in target.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _belongs(file: Path) -> bool:
    """Whether a file beside a checkpoint, or in a model's folder, goes with the exported model."""
    if not file.is_file() or file.name in ("config.json", sidecar.NAME) or file.name.startswith("."):
        return False
    return file.suffix in (".json", ".jinja", ".model", ".txt") and not file.name.endswith(".index.json")


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
