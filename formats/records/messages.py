"""Text-only records with a list of messages: what OpenAI's and ShareGPT's formats have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.columnar import TextOnlyConversations, prefix_sums
from sft_shards.formats.records.arrow_columns import (
    are_bare,
    as_texts,
    filled,
    is_list,
    pick,
    taken,
    texts_in,
    valid,
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
    names: Mapping[str, str | None],
    special: frozenset[str],
) -> TextOnlyConversations | None:
    """What is plain among records that have a list of messages.

    Args:
        lists: names that the list of messages may have in a record.
        keys: of a message, for its role and its text.
        names: role as records spell it → one of ours, or None for one that is never plain.
        special: other keys of a message that make it more than a role and a text.
    """
    import pyarrow as pa

    column = pick(batch, lists)
    if column is None or not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
        return None
    messages = column.flatten()
    parts = dict(zip((field.name for field in messages.type), messages.flatten(), strict=True))
    if len(parts) < len(messages.type) or not parts.keys() >= set(keys):
        return None
    roles, texts = as_texts(parts[keys[0]]), as_texts(parts[keys[1]])
    if roles is None or texts is None:
        return None
    sizes = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    more = [part for name, part in parts.items() if name in special and name not in keys]
    odd = ~valid(texts)
    for part in more:
        if part.null_count < len(part):
            odd |= valid(part)
    prompts, certain = texts_in(batch, SYSTEM)
    prompted = filled(prompts)
    rows = are_bare(batch) & certain & (sizes > 0)
    bounds = prefix_sums(sizes)
    if odd.any():
        bad = prefix_sums(odd)
        rows &= bad[bounds[1:]] == bad[bounds[:-1]]
    codes, table = encode_roles(roles, fields, names)
    if prompted.any():
        before = bounds[:-1][prompted]
        codes = np.insert(codes, before, LEADING_SYSTEM)
        places = np.insert(np.arange(len(texts)), before, len(texts) + np.flatnonzero(prompted))
        texts, sizes = taken([texts, prompts], places), sizes + prompted
    return group_turns(rows, sizes, codes, table, texts)


def message_schemas(
    record: Any, *, lists: Sequence[str], keys: tuple[str, str], special: frozenset[str]
) -> JsonSchemas | None:
    """The layout of records like this one, which has a list of messages or is one; as for `read_message_columns`."""
    bare = type(record) is list
    if not bare and type(record) is not dict:
        return None
    name = lists[0] if bare else next((name for name in lists if record.get(name) is not None), None)
    if name is None:
        return None
    messages = record if bare else record[name]
    if type(messages) is not list or set(map(type, messages)) != {dict}:
        return None
    simple = True
    for message in messages:
        more = message.keys() - keys
        if more:
            simple = False
            if any(message[one] is not None for one in more & special):
                return None
    both = tuple((key, TEXT) for key in keys)
    strict = {name: both}
    if bare:
        return JsonSchemas(strict=schema(((name, both),)), tolerant=None, value_field=name) if simple else None
    barred = tuple((one, NULL) for one in sorted(special - {*keys}))
    found = schemas_for(record, strict, {name: (*both, *barred)}, lists)
    return found if found is None or simple else replace(found, strict=None)
