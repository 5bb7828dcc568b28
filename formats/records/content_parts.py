"""Contents of messages from Arrow columns: texts, or lists of parts, which are texts and an assistant's reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, number_array, numbers_of, string_scalar
from sft_shards.formats.columnar import prefix_sums, utf8_buffers
from sft_shards.formats.records.arrow_columns import as_strings, is_list, not_null
from sft_shards.formats.records.fields import REASONING_PARTS, TEXT_KEYS, TEXT_PARTS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What some messages say."""

    texts: pa.StringArray
    """t texts, null where a message has no content."""
    reasoning: pa.StringArray | None = None
    """t texts, null where a content has no reasoning; None where none has any."""
    unsupported: NDArray[np.bool_] = field(repr=False)
    """bool[t]: the contents with a part that is of another type or out of order."""


def read_contents(column: pa.Array, *, in_parts: bool) -> Contents | None:
    """Return contents, each of which is a text or a list of parts; None for a column of another type.

    The parts ["a", "b"] and ["c"] are the texts "ab" and "c": they stand in one buffer, so only offsets are new.

    Args:
        in_parts: whether contents may be lists of parts.
    """
    import pyarrow as pa

    texts = as_strings(column)
    if texts is not None:
        return Contents(texts=texts, unsupported=np.zeros(len(texts), dtype=bool))
    if not in_parts or not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    flat = column.flatten()
    parts = dict(zip((one.name for one in flat.type), flat.flatten(), strict=True))
    kinds = as_strings(parts["type"]) if "type" in parts else None
    if kinds is None:
        return None
    offsets = prefix_sums(numbers_of(column.value_lengths(), null=0))
    encoded = kinds.dictionary_encode()
    are_text, are_reasoning = _are_of(encoded, TEXT_PARTS), _are_of(encoded, REASONING_PARTS)
    said = _texts(parts, kinds, are_reasoning)
    unsupported_before = prefix_sums(~(are_text | are_reasoning) | ~not_null(said))
    unsupported = unsupported_before[offsets[1:]] > unsupported_before[offsets[:-1]]
    values, bounds = utf8_buffers(said)
    if not are_reasoning.any():
        joined = _texts_at(values, bounds[offsets], not_null(column))
        return Contents(texts=joined, unsupported=unsupported)
    reasoning_before = prefix_sums(are_reasoning)
    begins, ends = offsets[:-1], offsets[1:]
    counts = reasoning_before[ends] - reasoning_before[begins]
    unsupported |= reasoning_before[begins + counts] - reasoning_before[begins] < counts  # it stands behind a text
    # Reasoning and text of each message in turn, as one array of 2t texts.
    borders = np.append(np.stack([begins, begins + counts], axis=1).reshape(-1), offsets[-1:])
    filled = np.stack([counts > 0, not_null(column)], axis=1).reshape(-1)
    both = _texts_at(values, bounds[borders], filled)
    reasoning, texts = (both.take(number_array(np.arange(first, len(both), 2))) for first in (0, 1))
    return Contents(texts=texts, reasoning=reasoning, unsupported=unsupported)


def _are_of(encoded: pa.DictionaryArray, wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool[p]: the parts of some types."""
    known = np.asarray([*(kind in wanted for kind in encoded.dictionary.to_pylist()), False], dtype=bool)
    return np.asarray(known[numbers_of(encoded.indices, null=-1)])


def _texts(parts: Mapping[str, pa.Array], kinds: pa.StringArray, are_reasoning: NDArray[np.bool_]) -> pa.StringArray:
    """Return the text of each part, null where it has none, or a key of another type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {name: as_strings(parts[name]) for name in (*TEXT_KEYS, *REASONING_PARTS) if name in parts}
    texts = pc.coalesce(
        pa.nulls(len(kinds), pa.string()), *(found[name] for name in TEXT_KEYS if found.get(name) is not None)
    )
    if are_reasoning.any():
        for name in REASONING_PARTS:
            if found.get(name) is not None:
                own = pc.if_else(pc.equal(kinds, string_scalar(name)), found[name], string_scalar(None))
                texts = pc.coalesce(own, texts)
    odd = np.zeros(len(kinds), dtype=bool)
    for name, one in found.items():
        if one is None:
            odd |= not_null(parts[name])
    return pc.if_else(bool_array(~odd), texts, string_scalar(None)) if odd.any() else texts


def _texts_at(values: NDArray[np.uint8], bounds: NDArray[np.int32], filled: NDArray[np.bool_]) -> pa.StringArray:
    """Return texts of which each begins in some bytes where the one before it ends, null where they are not filled."""
    import pyarrow as pa

    buffers = [
        bool_array(filled).buffers()[1],
        pa.py_buffer(np.ascontiguousarray(bounds, dtype=np.int32)),
        pa.py_buffer(values),
    ]
    return pa.Array.from_buffers(pa.string(), len(filled), buffers)
