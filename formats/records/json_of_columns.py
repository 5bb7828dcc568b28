"""Columns of structs and lists as JSON texts, without a Python object for each.

A struct is the JSON of its fields with words in between, a list that of its values: Arrow joins the texts of all rows
at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from sft_shards.formats.arrow_arrays import number_array, numbers_of, string_array, string_scalar
from sft_shards.formats.columnar import prefix_sums, utf8_buffers
from sft_shards.formats.layouts import json_text
from sft_shards.formats.records.arrow_columns import as_strings, is_list, take_texts

if TYPE_CHECKING:
    import pyarrow as pa

ESCAPED = np.isin(np.arange(256), [*range(32), *b'"\\'])
"""What JSON escapes in a text."""


def json_column(column: pa.Array) -> pa.StringArray | None:
    """Return a column's values as texts: texts as they are, structs and lists as `layouts.json_text` writes them.

    Returns:
        Texts, null where a value is; None for a column with values that JSON has no type for.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if (texts := as_strings(column)) is not None:
        return texts
    if not is_list(column.type) and not pa.types.is_struct(column.type):
        return None
    found = _json(column)
    if found is None or not column.null_count:
        return found
    return pc.if_else(column.is_valid(), found, string_scalar(None))


def _json(column: pa.Array) -> pa.StringArray | None:
    """Return the JSON of each value, `null` included."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    found: pa.StringArray | None = None
    if (texts := as_strings(column)) is not None:
        found = _quoted(texts)
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        found = column.cast(pa.string())
    elif pa.types.is_float32(kind) or pa.types.is_float64(kind):
        found = string_array(map(json.dumps, column.to_pylist()))
    elif pa.types.is_struct(kind):
        found = _object(column)
    elif is_list(kind):
        values = _json(column.flatten())
        if values is not None:
            offsets = prefix_sums(numbers_of(column.value_lengths(), null=0)).astype(np.int32)
            lists = pa.ListArray.from_arrays(number_array(offsets), values)
            found = _joined("[", pc.binary_join(lists, string_scalar(", ")), "]")
    elif pa.types.is_null(kind):
        return string_array(["null"] * len(column))
    if found is None or not column.null_count:
        return found
    return pc.if_else(column.is_valid(), found, string_scalar("null"))


def _object(structs: pa.StructArray) -> pa.StringArray | None:
    names = [field.name for field in structs.type]
    fields = [_json(values) for values in structs.flatten()]
    if len({*names}) < len(names) or any(field is None for field in fields):
        return None
    if not names:
        return string_array(["{}"] * len(structs))
    pieces: list[str | pa.StringArray] = []
    for name, values in zip(names, fields, strict=True):
        pieces += [f"{', ' if pieces else '{'}{json_text(name)}: ", values]
    return _joined(*pieces, "}")


def _joined(*pieces: str | pa.StringArray) -> pa.StringArray:
    """Return the pieces of each row one after the other; a `str` stands in every row."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(*(string_scalar(one) if type(one) is str else one for one in [*pieces, ""]))


def _quoted(texts: pa.StringArray) -> pa.StringArray:
    """Return texts as JSON."""
    values, offsets = utf8_buffers(texts)
    special = np.unique(np.searchsorted(offsets, np.flatnonzero(ESCAPED[values]), side="right") - 1)
    if len(special):
        escaped = [json_text(text)[1:-1] for text in texts.take(number_array(special)).to_pylist()]
        own = np.arange(len(texts))
        own[special] = len(texts) + np.arange(len(special))
        texts = take_texts([texts, string_array(escaped)], own)
    return _joined('"', texts, '"')
