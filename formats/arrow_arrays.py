"""Arrow arrays from numpy arrays and Python texts, without `pa.array`.

`pa.array` and `pa.scalar` ask pandas whether it knows the values, and so import it wherever it is installed: 0.2 s in
every process, for a library that nothing here needs. These functions hand Arrow the buffers themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def number_array(values: NDArray[Any]) -> pa.Array:
    """Return whole numbers, of any dtype and shape [n], as an Arrow array of the same type; no nulls."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def bool_array(values: NDArray[np.bool_]) -> pa.BooleanArray:
    """Return bool[n] as an Arrow array, one bit each; no nulls."""
    import pyarrow as pa

    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def string_array(texts: Iterable[str]) -> pa.StringArray:
    """Return texts as an Arrow array of strings; no nulls. "ab" and "ï" have the offsets [0, 2, 4] in UTF-8.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
        OverflowError: the texts have more than 2 GiB together.
    """
    return utf8_array([text.encode() for text in texts])


def utf8_array(encoded: Sequence[bytes]) -> pa.StringArray:
    """Return texts in UTF-8 as an Arrow array of strings; no nulls.

    Raises:
        OverflowError: as `string_array`.
    """
    import pyarrow as pa

    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError("more than 2 GiB of text in one batch")
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def string_scalar(text: str | None) -> pa.StringScalar:
    """Return a text, or null, as Arrow's functions take it beside arrays."""
    import pyarrow as pa

    return pa.nulls(1, pa.string())[0] if text is None else string_array([text])[0]


def numbers_of(array: pa.Array | pa.ChunkedArray, *, null: int | None = None) -> NDArray[Any]:
    """Return the values of an Arrow array of whole numbers, [n] of the same dtype; without nulls, without a copy.

    A slice [20, 30] of [10, 20, 30] has the offset 1 and the length 2 in the buffer of all three.

    Args:
        null: the number that stands for a null (default: there are none).
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    values: NDArray[Any] = np.frombuffer(array.buffers()[1] or b"", dtype=array.type.to_pandas_dtype())
    values = values[array.offset : array.offset + len(array)]
    if not array.null_count:
        return values
    assert null is not None, "nulls have no number"
    return np.where(bools_of(array.is_valid()), values, values.dtype.type(null))


def bools_of(array: pa.BooleanArray) -> NDArray[np.bool_]:
    """Return bool[n], the values of an Arrow array of booleans, which holds no nulls."""
    assert array.null_count == 0, "nulls are neither true nor false"
    bits = np.frombuffer(array.buffers()[1] or b"", dtype=np.uint8)
    values = np.unpackbits(bits, count=array.offset + len(array), bitorder="little")
    return values[array.offset :].astype(np.bool_)
