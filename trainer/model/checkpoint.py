"""Read a torch_dist checkpoint tensor by tensor: torch alone, no Megatron, no GPU, no process group.

    with Checkpoint.open("out", step=None) as checkpoint:
        checkpoint.tensors["decoder.layers.mlp.linear_fc2.weight"].shape      # (32, 4096, 14336): layers in front
        checkpoint.read("decoder.layers.mlp.linear_fc2.weight", (3,))         # of layer 3, [4096, 14336]

`.metadata` lists, for every whole tensor, the chunks that ranks have saved and where in which file each lies. It is
a pickle, and a checkpoint may come from anywhere: it is unpickled with a list of torch's own metadata classes, and
nothing else in it is ever run.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError

TRACKER = "latest_checkpointed_iteration.txt"
METADATA = "torch.distributed.checkpoint.metadata"
PLANS = ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData")
"""What ranks wrote, which Megatron keeps in the index for the next save."""
ALLOWED = {
    *(
        (METADATA, name)
        for name in (
            *("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "_MEM_FORMAT_ENCODING"),
            *("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
        )
    ),
    *(("torch.distributed.checkpoint.planner", name) for name in PLANS),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("torch", "device"),
    *(("pathlib", name) for name in ("Path", "PosixPath", "PurePosixPath")),
    *(("pathlib._local", name) for name in ("Path", "PosixPath", "PurePosixPath")),
    ("collections", "OrderedDict"),
    ("builtins", "set"),
}
"""Module and name of the classes that `.metadata` may name; dtypes of torch come on top."""
MEGATRON_PLAN = ("megatron.core.dist_checkpointing.strategies.torch", "MCoreSavePlan")
"""What Megatron up to 0.15 puts into `.metadata` as well: how it was saved. Nothing here reads it."""
BESIDE = re.compile(r"^(optimizer|rng_state|opt_param_scheduler|rerun_state_machine|chained_|common_state|args)")
"""Beginnings of the names of tensors that are not the model's."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A whole tensor in a checkpoint."""

    shape: tuple[int, ...]
    dtype: Any
    """A torch.dtype."""
    chunks: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Offset and size of each part that a rank saved, as long as `shape`."""


class Checkpoint:
    """One step of a torch_dist checkpoint, open for reading."""

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.folder = folder
        self._storage = {(index.fqn, tuple(index.offset or ())): info for index, info in metadata.storage_data.items()}
        self.tensors: dict[str, Saved] = {}
        """The model's tensors by name, without those of the optimizer."""
        for name, entry in metadata.state_dict_metadata.items():
            if hasattr(entry, "chunks") and not BESIDE.match(name):
                chunks = tuple((tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in entry.chunks)
                self.tensors[name] = Saved(shape=tuple(entry.size), dtype=entry.properties.dtype, chunks=chunks)
        self.objects = {
            name: int(self._storage[name, ()].length)
            for name, entry in metadata.state_dict_metadata.items()
            if not hasattr(entry, "chunks") and (name, ()) in self._storage
        }
        """Bytes that each saved object takes that is no tensor, by name."""
        self._by_leading: dict[tuple[str, int], dict[tuple[int, ...], list[Any]]] = {}

    @classmethod
    def open(cls, path: str | Path, *, step: int | None = None) -> Checkpoint:
        """Read the index of a checkpoint.

        Args:
            path: what --save named, or one `iter_…` folder in it.
            step: which iteration; None: the last.

        Raises:
            UsageError: no checkpoint there, no such step, or one of another format than torch_dist.
            DataError: it is damaged.
        """
        folder = step_folder(Path(path), step)
        _check_format(folder)
        file = folder / ".metadata"
        try:
            with file.open("rb") as stream:
                metadata = _Unpickler(stream).load()
            return cls(folder, metadata)
        except FileNotFoundError:
            raise DataError(
                f"{folder}: no .metadata in it, so the save was not finished; export an earlier step"
            ) from None
        except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise DataError(f"{file}: not the index of a checkpoint ({' '.join(str(error).split())[:120]})") from None

    def read(self, name: str, leading: Sequence[int] = ()) -> Any:
        """A whole tensor, or what stands at `leading` on its first axes, on the CPU in the dtype of the checkpoint.

        Example: chunks of rows 0 to 2 and 2 to 4 of layer 3 lie at offsets (3, 0, 0) and (3, 2, 0); `leading` (3,)
        reads both and puts them into a tensor of 4 rows.

        Raises:
            DataError: a part is missing or damaged.
        """
        import torch

        saved, ahead = self.tensors[name], len(leading)
        own = saved.shape[ahead:]
        parts = self._chunks(name, ahead).get(tuple(leading), [])
        if len(parts) == 1 and parts[0][1][ahead:] == own:
            return self._load(name, *parts[0]).reshape(own)
        whole = torch.empty(own, dtype=saved.dtype)
        count = 0
        for offset, size in parts:
            place = tuple(slice(at, at + length) for at, length in zip(offset[ahead:], size[ahead:], strict=True))
            whole[place] = self._load(name, offset, size).reshape(size[ahead:])
            count += whole[place].numel()
        if count != whole.numel():
            raise DataError(f"{self.folder}: parts of {name} are missing; export an earlier step (--step)")
        return whole

    def read_object(self, name: str) -> bytes:
        """Return the bytes that `torch.save` made of an object, without unpickling them.

        Raises:
            DataError: they are missing.
        """
        info = self._storage[name, ()]
        try:
            with self._file(name, info).open("rb") as stream:
                stream.seek(info.offset)
                return stream.read(info.length)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: {name} cannot be read ({error}); use an earlier step") from None

    def _file(self, name: str, info: Any) -> Path:
        """Return the file of a part, which lies in the checkpoint's own folder."""
        if Path(info.relative_path).name != info.relative_path or getattr(info, "transform_descriptors", None):
            raise DataError(f"{self.folder}: {name} lies in {info.relative_path!r}, in a form that cannot be read")
        return self.folder / str(info.relative_path)

    def _chunks(self, name: str, ahead: int) -> dict[tuple[int, ...], list[Any]]:
        """Chunks of a tensor by where they stand on its first axes, each of which they cover by one."""
        if (name, ahead) not in self._by_leading:
            found: dict[tuple[int, ...], list[Any]] = {}
            for offset, size in self.tensors[name].chunks:
                if any(length != 1 for length in size[:ahead]):
                    raise DataError(
                        f"{self.folder}: {name} is saved in parts of several layers or experts, unsupported"
                    )
                found.setdefault(offset[:ahead], []).append((offset, size))
            self._by_leading[name, ahead] = found
        return self._by_leading[name, ahead]

    def _load(self, name: str, offset: tuple[int, ...], size: tuple[int, ...]) -> Any:
        import torch

        info = self._storage.get((name, offset))
        if info is None:
            raise DataError(f"{self.folder}: .metadata does not say where {name} at {list(offset)} lies")
        file = self._file(name, info)
        try:
            with file.open("rb", buffering=0) as stream:
                part: Any = _Part(stream, info.offset, info.length)
                value = torch.load(part, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"{file}: {name} cannot be read ({reason}); export an earlier step (--step)") from None
        if tuple(value.shape) != size and value.numel() != _numel(size):
            raise DataError(f"{file}: {name} is {list(value.shape)}, by .metadata {list(size)}")
        return value


class _MegatronPlan:
    """Stands for `MEGATRON_PLAN`, so that Megatron need not be there."""


class _Unpickler(pickle.Unpickler):
    """Unpickles nothing but `ALLOWED` and torch's dtypes."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names; UnpicklingError where it is not one of torch's metadata classes."""
        import torch

        if (module, name) == MEGATRON_PLAN:
            return _MegatronPlan
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no index needs")
        return super().find_class(module, name)


class _Part(io.RawIOBase):
    """A span of a file, as a file of its own: torch.load reads from it without a copy of the whole."""

    def __init__(self, stream: Any, offset: int, length: int) -> None:
        self._stream, self._offset, self._length, self._at = stream, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._length - self._at))
        self._stream.seek(self._offset + self._at)
        read = self._stream.readinto(view[:count]) if count else 0
        self._at += read
        return int(read)


def step_folder(path: Path, step: int | None) -> Path:
    """The folder of one step.

    Raises:
        UsageError: no checkpoint there, or not that step.
    """
    if step is None and (path / ".metadata").is_file():
        return path
    if not (path / TRACKER).is_file():
        if step is None and any(path.glob("mp_rank_*")):
            return path
        what = f"no checkpoint there (no {TRACKER})" if path.is_dir() else "no such folder"
        raise UsageError(f"{path}: {what}; name the folder that --save named")
    found = sorted(path.glob("iter_*"))
    if step is None:
        text = (path / TRACKER).read_text().strip()
        folder = path / ("release" if text == "release" else f"iter_{int(text) if text.isdigit() else 0:07d}")
    else:
        folder = path / f"iter_{step:07d}"
    if not folder.is_dir():
        steps = ", ".join(str(int(each.name[5:])) for each in found if each.name[5:].isdigit()) or "none"
        raise UsageError(f"{path}: no {folder.name} in it; steps: {steps}")
    return folder


def _check_format(folder: Path) -> None:
    """UsageError where a checkpoint is not of the format torch_dist."""
    if any(folder.glob("mp_rank_*")):
        save = folder.parent if folder.name.startswith("iter_") else folder
        raise UsageError(
            f"{folder}: written with --ckpt-format torch, one file a rank. Convert it by the call that trained "
            f"it, without --save: sft-train … -- … --ckpt-format torch --load {save} "
            f"--finetune --ckpt-convert-format torch_dist --ckpt-convert-save {save}-torch_dist. Then: "
            f"sft-train export {save}-torch_dist/torch_dist --output DIR --model {save}/hf"
        )
    try:
        backend = json.loads((folder / "metadata.json").read_text()).get("sharded_backend")
    except (OSError, ValueError, AttributeError):
        return  # what cannot be read is said of .metadata
    if backend not in (None, "torch_dist"):
        raise UsageError(f"{folder}: of the format {backend}; save with --ckpt-format torch_dist")


def model_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Saved]]:
    """The model's tensors that carry weights: those of Transformer Engine's extra state are none."""
    for name, saved in checkpoint.tensors.items():
        if "_extra_state" not in name:
            yield name, saved


def _numel(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
