"""Text-only records with a list of messages, in columns: what OpenAI's and ShareGPT's formats have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.arrow_arrays import numbers_of
from sft_shards.formats.columnar import TextOnlyConversations, prefix_sums
from sft_shards.formats.records.arrow_columns import (
    as_strings,
    first_filled_column,
    first_texts,
    have_nothing_beside,
    is_list,
    not_empty,
    not_null,
    take_texts,
)
from sft_shards.formats.records.fields import SYSTEM, FieldMap
from sft_shards.formats.records.json_schemas import NULL, TEXT, JsonSchemas, schema, schemas_for
from sft_shards.formats.records.role_sequences import LEADING_SYSTEM, encode_roles, group_turns

if TYPE_CHECKING:
    import pyarrow as pa


def read_message_columns(
    batch: pa.RecordBatch,
    fields: FieldMap,
    *,
    lists: Sequence[str],
    keys: tuple[str, str],
    roles: Mapping[str, str | None],
    special: frozenset[str],
) -> TextOnlyConversations | None:
    """Return the text-only conversations among records with a list of messages; see `ColumnarFormat.read_columns`.

    Args:
        lists: names that the list of messages may have in a record.
        keys: the keys of a message's role and of its text.
        roles: role as records spell it → one of ours, or None for one that is never text-only.
        special: other keys that make a message more than a role and a text.
    """
    import pyarrow as pa

    column = first_filled_column(batch, lists)
    if column is None or not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    messages = column.flatten()
    parts = dict(zip((field.name for field in messages.type), messages.flatten(), strict=True))
    if len(parts) < len(messages.type) or not parts.keys() >= set(keys):
        return None
    names, texts = as_strings(parts[keys[0]]), as_strings(parts[keys[1]])
    if names is None or texts is None:
        return None
    lengths = numbers_of(column.value_lengths(), null=0).astype(np.int64)
    prompts, certain = first_texts(batch, SYSTEM)
    rows = have_nothing_beside(batch, fields.beside()) & certain & (lengths > 0)
    unsupported = ~not_null(texts)  # bool[t], by message
    for name, part in parts.items():
        if name in special and name not in keys and part.null_count < len(part):
            unsupported |= not_null(part)
    offsets = prefix_sums(lengths)
    if unsupported.any():
        unsupported_before = prefix_sums(unsupported)
        rows &= unsupported_before[offsets[1:]] == unsupported_before[offsets[:-1]]
    codes, table = encode_roles(names, fields, roles)
    prompted = not_empty(prompts)
    if prompted.any():
        # A system prompt beside the list becomes the first turn. Three records of 2 messages, the second prompted:
        # first_turns [2], indices [0, 1, 7, 2, 3, 4, 5] (prompts follow the 6 texts), lengths [2, 3, 2].
        first_turns = offsets[:-1][prompted]
        codes = np.insert(codes, first_turns, LEADING_SYSTEM)
        indices = np.insert(np.arange(len(texts)), first_turns, len(texts) + np.flatnonzero(prompted))
        texts, lengths = take_texts([texts, prompts], indices), lengths + prompted
    return group_turns(rows, lengths, codes, table, texts)


def message_schemas(
    record: Any, fields: FieldMap, *, lists: Sequence[str], keys: tuple[str, str], special: frozenset[str]
) -> JsonSchemas | None:
    """Return the schemas for records like this one, which has a list of messages or is one.

    The arguments are those of `read_message_columns`; see `ColumnarFormat.json_schemas`.
    """
    is_bare_list = type(record) is list
    if not is_bare_list and type(record) is not dict:
        return None
    name = lists[0] if is_bare_list else next((name for name in lists if record.get(name) is not None), None)
    if name is None:
        return None
    messages = record if is_bare_list else record[name]
    if type(messages) is not list or set(map(type, messages)) != {dict}:
        return None
    other_keys = set().union(*messages) - {*keys}
    if any(message.get(key) is not None for message in messages for key in other_keys & special):
        return None
    if not all(isinstance(message.get(key), (str, type(None))) for message in messages for key in keys):
        return None
    role_and_text = tuple((key, TEXT) for key in keys)
    if is_bare_list:
        strict = schema(((name, role_and_text),))
        return None if other_keys else JsonSchemas(strict=strict, tolerant=None, value_field=name)
    must_be_null = tuple((key, NULL) for key in sorted(special - {*keys}))
    found = schemas_for(record, {name: role_and_text}, {name: (*role_and_text, *must_be_null)}, lists, fields)
    return replace(found, strict=None) if found is not None and other_keys else found
