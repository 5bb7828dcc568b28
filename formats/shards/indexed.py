"""Megatron's indexed dataset: a `.bin` of raw items and an `.idx` that says where each sequence lies.

This is not `megatron.core`'s class, because CPU nodes have neither torch nor Megatron, because that class silently
wraps ids that do not fit the dtype, and because it opens a truncated file. The bytes are the same
(megatron/core/datasets/indexed_dataset.py, `_IndexWriter`), with one sequence per document; tests read them back with
Megatron's class. All numbers are little-endian:

    9 bytes  MMIDIDX\\0\\0        8 bytes  u64 version 1          1 byte   dtype code
    8 bytes  u64 sequences S     8 bytes  u64 documents + 1
    int32[S] lengths in items    int64[S] pointers in bytes      int64[S + 1] document bounds
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.contents import open_inside
from sft_shards.formats.shards.files import sync

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES: dict[int, type[np.generic]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.float64,
    7: np.float32,
    8: np.uint16,
}
MASK_DTYPE = np.dtype(np.uint8)
U16_LIMIT = 65_500
"""Vocabularies below this many ids fit uint16 (Megatron's `DType.optimal_dtype`), larger ones take int32."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Choose the dtype that token ids are stored in. `vocab_size` is `len(tokenizer)`, added tokens included."""
    return np.dtype(np.uint16 if vocab_size < U16_LIMIT else np.int32)


def dtype_code(dtype: np.dtype[Any]) -> int:
    """Look up Megatron's code for a dtype; ValueError if it has none."""
    for code, known in DTYPE_CODES.items():
        if np.dtype(known) == dtype:
            return code
    raise ValueError(f"{dtype} has no code in Megatron's indexed dataset")


def index_bytes(lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> bytes:
    """Make a whole `.idx` for sequences of these lengths (int32[S], items), one document each: 42 + 20·S bytes.

    Three sequences of 2, 1 and 3 uint16 items have the pointers 0, 4, 6 (bytes) and the document bounds 0, 1, 2, 3.
    Pointers are computed in int64, because an int32 product overflows past 2 GiB (Megatron-LM#1672).
    """
    count = len(lengths)
    ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
    pointers = np.zeros(count, dtype="<i8")
    pointers[1:] = ends[:-1]
    header = HEADER.pack(MAGIC, 1, dtype_code(dtype), count, count + 1)
    documents = np.arange(count + 1, dtype="<i8")
    return header + lengths.astype("<i4").tobytes() + pointers.tobytes() + documents.tobytes()


class IndexedWriter:
    """Appends sequences to `<prefix>.bin`, and writes `<prefix>.idx` when closed. Keeps 4 bytes a sequence in memory.

    Both files are written under their final names; the caller makes the pair appear at once.

    Args:
        limit: one more than the largest item allowed.

    Raises:
        ValueError: an item is negative or not below `limit`, or a sequence has no items.
    """

    def __init__(self, prefix: str | os.PathLike[str], dtype: np.dtype[Any], *, limit: int) -> None:
        self.prefix = Path(prefix)
        self.dtype = dtype.newbyteorder("<")
        self.limit = limit
        self.lengths = array("i")
        self.items = 0
        self.sha256: dict[str, str] = {}
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = self.prefix.with_suffix(".bin").open("wb", buffering=1 << 16)

    def append(self, flat: NDArray[Any], lengths: NDArray[np.int64]) -> None:
        """Append sequences: `lengths`, int64[n], cuts `flat`, int[sum(lengths)], which holds their items in a row."""
        if len(lengths) == 0:
            return
        if int(lengths.min()) < 1 or int(lengths.sum()) != len(flat):
            raise ValueError(f"lengths {lengths.min()}..., sum {lengths.sum()}, do not cut {len(flat)} items")
        unsigned = flat.view(f"u{flat.itemsize}")  # in which a negative item is a large one
        if int(unsigned.max()) >= self.limit:
            raise ValueError(f"item {flat[unsigned.argmax()]} is outside 0..{self.limit - 1}")
        data = np.ascontiguousarray(flat, dtype=self.dtype).data
        self._file.write(data)
        self._digest.update(data)
        self.lengths.frombytes(lengths.astype(np.int32).tobytes())
        self.items += len(flat)

    def close(self) -> None:
        """Finish `.bin` and write `.idx`, read-only and durable; `sha256` then holds the hash of each by its suffix."""
        sync(self._file, read_only=True)
        self._file.close()
        index = index_bytes(np.frombuffer(self.lengths, dtype=np.int32), self.dtype)
        with open(self.prefix.with_suffix(".idx"), "wb") as file:
            file.write(index)
            sync(file, read_only=True)
        self.sha256 = {".bin": self._digest.hexdigest(), ".idx": hashlib.sha256(index).hexdigest()}

    def discard(self) -> None:
        """Close and remove what was written."""
        self._file.close()
        for suffix in (".bin", ".idx"):
            self.prefix.with_suffix(suffix).unlink(missing_ok=True)


class IndexedReader:
    """A memory-mapped pair of files. Opening it checks magic, version, dtype and the sizes of both files.

    Args:
        prefix: path of both files without their suffix.
        root: the directory that both lie in, below which no link is followed (default: the folder of `prefix`).

    Attributes:
        lengths: int32[S], items of each sequence.
        starts: int64[S], the item (not byte) at which each sequence begins.
        items: the whole `.bin`, [sum(lengths)] of the stored dtype.

    Raises:
        DataError: a file is missing, cut off, appended to, or not what its header says.
    """

    def __init__(self, prefix: str | os.PathLike[str], *, root: Path | None = None) -> None:
        self.prefix = Path(prefix)
        self._root = root or self.prefix.parent
        bin_path, idx_path = self.prefix.with_suffix(".bin"), self.prefix.with_suffix(".idx")
        with self._open(idx_path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < HEADER.size:
                raise DataError(f"{idx_path}: {size} bytes are too few for an index; it was cut off")
            magic, version, code, count, bounds = HEADER.unpack(file.read(HEADER.size))
            if magic != MAGIC or version != 1 or code not in DTYPE_CODES:
                raise DataError(f"{idx_path}: not a Megatron index (magic {magic!r}, version {version}, dtype {code})")
            if bounds != count + 1 or size != HEADER.size + 20 * count + 8:
                raise DataError(f"{idx_path}: {size} bytes do not fit {count} sequences of one document each")
            # Arrays over the maps: slicing the subclass np.memmap costs ten times as much.
            index = np.asarray(np.memmap(file, mode="r", dtype=np.uint8))
        self.dtype: np.dtype[Any] = np.dtype(DTYPE_CODES[code]).newbyteorder("<")
        self._width = self.dtype.itemsize
        cut = HEADER.size + 4 * count
        self.lengths: NDArray[np.int32] = index[HEADER.size : cut].view("<i4")
        self._pointers: NDArray[np.int64] = index[cut : cut + 8 * count].view("<i8")
        self.bounds: NDArray[np.int64] = index[cut + 8 * count :].view("<i8")
        expected = int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        with self._open(bin_path) as file:
            actual = os.fstat(file.fileno()).st_size
            if actual != expected:
                raise DataError(
                    f"{bin_path}: {actual} bytes, its index needs {expected}; it was cut off or appended to"
                )
            if expected == 0:
                raise DataError(f"{bin_path}: empty; a shard holds at least one sequence")
            self.items: NDArray[Any] = np.asarray(np.memmap(file, mode="r", dtype=self.dtype))

    def _open(self, path: Path) -> IO[bytes]:
        try:
            return open_inside(self._root, path.relative_to(self._root))
        except FileNotFoundError:
            raise DataError(f"{path}: missing; run 'sft-preprocess verify' on the shard directory") from None

    @property
    def starts(self) -> NDArray[np.int64]:
        """int64[S], the item at which each sequence begins, computed at each call."""
        return self._pointers // self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Give the items of one sequence as a read-only view."""
        start = self._pointers.item(row) // self._width
        return self.items[start : start + self.lengths.item(row)]

    def check_layout(self) -> None:
        """Check that every sequence has an item, and that pointers and document bounds follow from the lengths.

        Three sequences of 2, 1 and 3 uint16 items have the pointers 0, 4, 6 and the document bounds 0, 1, 2, 3.

        Raises:
            DataError: they do not, so that a sequence would be read from another place.
        """
        where = self.prefix.with_suffix(".idx")
        if int(self.lengths.min()) < 1:
            row = int(self.lengths.argmin())
            raise DataError(f"{where}: sequence {row} has {self.lengths[row]} items; make the shards again")
        ends = np.cumsum(self.lengths, dtype=np.int64)
        right = int(self._pointers[0]) == 0 and np.array_equal(self._pointers[1:], ends[:-1] * self._width)
        if not right or not np.array_equal(self.bounds, np.arange(len(self) + 1)):
            raise DataError(f"{where}: pointers or document bounds do not follow from the lengths")
