"""Write safetensors files row by row: the library's own writer wants every tensor of a file in memory at once.

    with SafetensorsWriter(folder, shapes, dtype) as writer:
        writer.write("lm_head.weight", 0, rows)

The format is eight bytes of length, a JSON header and the values; the header is written first, because all shapes
are known. Rows may come in any order; each must come exactly once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sft_shards.formats.shards.files import write_json

FILE_BYTES = 5_000_000_000
"""Most bytes of tensors in a file, unless one tensor is larger; what transformers writes too."""
DTYPES = {"torch.float32": ("F32", 4), "torch.bfloat16": ("BF16", 2), "torch.float16": ("F16", 2)}


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a tensor lies."""

    file: int
    offset: int
    """Byte of its first value in the file."""
    row: int
    """Bytes in a row."""
    rows: int


class SafetensorsWriter:
    """The files of a model in a folder, all open at once; complete when it is closed."""

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]], dtype: Any) -> None:
        """Create the files with their headers.

        Args:
            folder: an empty folder.
            shapes: of all tensors, in the order in which files are filled.
            dtype: a torch.dtype, of all.
        """
        self.folder, self.dtype = folder, dtype
        code, width = DTYPES[str(dtype)]
        groups: list[list[str]] = [[]]
        size = 0
        sizes = {name: width * _numel(shape) for name, shape in shapes.items()}
        for name in shapes:
            if groups[-1] and size + sizes[name] > FILE_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(name)
            size += sizes[name]
        count = len(groups)
        self.names = (
            ["model.safetensors"]
            if count == 1
            else [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        )
        self.bytes = sum(sizes.values())
        self._files: list[int] = []
        self._places: dict[str, _Place] = {}
        self._left = {name: shape[0] for name, shape in shapes.items()}
        for number, group in enumerate(groups):
            header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
            at = 0
            for name in sorted(group):  # as the library orders tensors of one dtype
                header[name] = {
                    "dtype": code,
                    "shape": list(shapes[name]),
                    "data_offsets": [at, at + sizes[name]],
                }
                at += sizes[name]
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            text += b" " * (-len(text) % 8)
            file = os.open(folder / self.names[number], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            self._files.append(file)
            os.pwrite(file, len(text).to_bytes(8, "little") + text, 0)
            os.truncate(file, 8 + len(text) + at)
            for name in group:
                rows = shapes[name][0]
                offset = 8 + len(text) + header[name]["data_offsets"][0]
                self._places[name] = _Place(file=number, offset=offset, row=sizes[name] // rows, rows=rows)

    def write(self, name: str, start: int, values: Any) -> None:
        """Write rows of a tensor.

        Args:
            start: first row.
            values: torch.Tensor[rows, …] of any dtype, cast to that of the files.
        """
        import torch

        place = self._places[name]
        rows = values.shape[0]
        assert start + rows <= place.rows, (name, start, rows)
        raw = values.to(self.dtype).contiguous().reshape(-1).view(torch.uint8).numpy()
        assert raw.nbytes == rows * place.row, (name, values.shape)
        view, at = memoryview(raw), place.offset + start * place.row
        while view:  # a call writes 2 GB at most
            count = os.pwrite(self._files[place.file], view, at)
            view, at = view[count:], at + count
        self._left[name] -= rows

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                missing = [name for name, rows in self._left.items() if rows]
                assert not missing, f"rows of {missing[0]} were not written once: {self._left[missing[0]]}"
                for file in self._files:
                    os.fsync(file)
        finally:
            for file in self._files:
                os.close(file)
        if kind is None and len(self.names) > 1:
            where = {name: self.names[place.file] for name, place in sorted(self._places.items())}
            write_json(
                self.folder / "model.safetensors.index.json",
                {"metadata": {"total_size": self.bytes}, "weight_map": where},
            )


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
