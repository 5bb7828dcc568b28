"""Contents of messages from Arrow columns: texts, or lists of parts: texts, an assistant's reasoning and its calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bool_array, number_array, numbers_of, string_scalar
from sft_shards.formats.columnar import prefix_sums, utf8_buffers
from sft_shards.formats.records.arrow_columns import as_strings, is_list, not_null
from sft_shards.formats.records.call_columns import CallColumns, are_objects, children, read_part_calls
from sft_shards.formats.records.fields import CALL_PARTS, REASONING_PARTS, TEXT_KEYS, TEXT_PARTS
from sft_shards.formats.records.json_schemas import CALL_OBJECTS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What some messages say."""

    texts: pa.StringArray
    """t texts, null where a message has no content."""
    reasoning: pa.StringArray | None = None
    """t texts, null where a content has no reasoning; None where none has any."""
    calls: CallColumns | None = None
    """None where none has a call."""
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
    parts = children(column.flatten())
    kinds = as_strings(parts["type"]) if "type" in parts else None
    if kinds is None:
        return None
    lengths = numbers_of(column.value_lengths(), null=0)
    offsets, owners = prefix_sums(lengths), np.repeat(np.arange(len(column)), lengths)
    encoded = kinds.dictionary_encode()
    are_text, are_reasoning, are_calls = (_are_of(encoded, own) for own in (TEXT_PARTS, REASONING_PARTS, CALL_PARTS))
    said = _texts(parts, kinds, are_reasoning, are_calls)
    odd = ~(are_text | are_reasoning | are_calls) | ~(are_calls | not_null(said))
    ranks = are_text + 2 * are_calls  # reasoning is written first, then text, then calls
    odd[1:] |= (ranks[1:] < ranks[:-1]) & (owners[1:] == owners[:-1])
    calls = None
    if are_calls.any():
        chosen = bool_array(are_calls)
        found = read_part_calls({name: one.filter(chosen) for name, one in parts.items()}, kinds.filter(chosen))
        if found is None:
            odd |= are_calls
        else:
            counts = prefix_sums(found.counts)[prefix_sums(are_calls)[offsets]]
            calls = replace(found, counts=np.diff(counts))
    unsupported = np.diff(prefix_sums(odd)[offsets]) > 0
    values, bounds = utf8_buffers(said)
    without = np.zeros(len(column), dtype=bool)  # a text: its parts are calls
    if calls is not None:
        without = (calls.counts > 0) & (np.diff(prefix_sums(are_text)[offsets]) == 0)
    if not are_reasoning.any():
        joined = _texts_at(values, bounds[offsets], not_null(column) & ~without)
        return Contents(texts=joined, calls=calls, unsupported=unsupported)
    counts = np.diff(prefix_sums(are_reasoning)[offsets])
    begins = offsets[:-1]
    # Reasoning and text of each message in turn, as one array of 2t texts.
    borders = np.append(np.stack([begins, begins + counts], axis=1).reshape(-1), offsets[-1:])
    filled = np.stack([counts > 0, not_null(column) & ~without], axis=1).reshape(-1)
    both = _texts_at(values, bounds[borders], filled)
    reasoning, texts = (both.take(number_array(np.arange(first, len(both), 2))) for first in (0, 1))
    return Contents(texts=texts, reasoning=reasoning, calls=calls, unsupported=unsupported)


def _are_of(encoded: pa.DictionaryArray, wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool[p]: the parts of some types."""
    known = np.asarray([*(kind in wanted for kind in encoded.dictionary.to_pylist()), False], dtype=bool)
    return np.asarray(known[numbers_of(encoded.indices, null=-1)])


def _texts(
    parts: Mapping[str, pa.Array],
    kinds: pa.StringArray,
    are_reasoning: NDArray[np.bool_],
    are_calls: NDArray[np.bool_],
) -> pa.StringArray:
    """Return the text of each part, null where it has none, or a key of another type, and of calls."""
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
    odd = are_calls.copy()
    for name, one in found.items():
        if one is None:
            odd |= not_null(parts[name])
        elif name in CALL_OBJECTS:
            odd |= are_objects(one)
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
