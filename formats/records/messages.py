"""Text-only records with a list of messages, in columns: what OpenAI's and ShareGPT's formats have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import bools_of, numbers_of
from sft_shards.formats.columnar import TextOnlyConversations, prefix_sums
from sft_shards.formats.layouts import ALIAS
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
from sft_shards.formats.records.json_schemas import INTEGER, NULL, TEXT, JsonSchemas, schema, schemas_for
from sft_shards.formats.records.role_sequences import FIELDS, LEADING_SYSTEM, encode_roles, group_turns

if TYPE_CHECKING:
    import pyarrow as pa

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Spellings of a message's reasoning, of which those that are not null say the same."""
TEXT_FIELDS = (*REASONING, "name", "tool_call_id")
"""Keys of a message whose texts are read as columns, too."""
WEIGHT = "weight"


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
    beside, constants, unknown = _fields_beside({name: parts[name] for name in parts if name in special - {*keys}})
    if unknown is not None:
        unsupported |= unknown
    offsets = prefix_sums(lengths)
    if unsupported.any():
        unsupported_before = prefix_sums(unsupported)
        rows &= unsupported_before[offsets[1:]] == unsupported_before[offsets[:-1]]
    codes, table = encode_roles(names, fields, roles)
    counts = lengths
    if beside or constants:
        # Each field counts as a turn of its own. Two messages "a" and "b", of which the second has a name, "n", and no
        # weight: codes [user, tool, name, weight=0], indices [0, 1, 3] into the texts [a, b, null, n], lengths [4].
        labels = [*FIELDS.values()]
        has_text = np.asarray([True, *("=" not in label for label in labels)])
        present = np.zeros((len(texts), 1 + len(FIELDS)), dtype=bool)
        present[:, 0] = True
        every_code = np.broadcast_to(np.asarray([0, *FIELDS], dtype=np.uint8), present.shape).copy()
        every_code[:, 0] = codes
        places = np.zeros(present.shape, dtype=np.int64)
        places[:, 0] = np.arange(len(texts))
        for number, (label, part) in enumerate(beside.items(), 1):
            column = 1 + labels.index(label)
            present[:, column] = not_null(part)
            places[:, column] = number * len(texts) + np.arange(len(texts))
        for label, chosen in constants.items():
            present[:, 1 + labels.index(label)] = chosen
        codes = every_code[present]
        texts = take_texts([texts, *beside.values()], places[:, has_text][present[:, has_text]])
        counts, lengths = (
            np.diff(prefix_sums(found.sum(axis=1))[offsets]) for found in (present[:, has_text], present)
        )
        offsets = prefix_sums(lengths)
        text_offsets = prefix_sums(counts)
    else:
        text_offsets = offsets
    prompted = not_empty(prompts)
    if prompted.any():
        # A system prompt beside the list becomes the first turn. Three records of 2 messages, the second prompted:
        # first_turns [2], indices [0, 1, 7, 2, 3, 4, 5] (prompts follow the 6 texts), lengths [2, 3, 2].
        codes = np.insert(codes, offsets[:-1][prompted], LEADING_SYSTEM)
        first_texts_ = text_offsets[:-1][prompted]
        indices = np.insert(np.arange(len(texts)), first_texts_, len(texts) + np.flatnonzero(prompted))
        texts, lengths, counts = take_texts([texts, prompts], indices), lengths + prompted, counts + prompted
    return group_turns(rows, lengths, codes, table, texts, counts)


def _fields_beside(
    parts: Mapping[str, pa.Array],
) -> tuple[dict[str, pa.StringArray], dict[str, NDArray[np.bool_]], NDArray[np.bool_] | None]:
    """Return what messages have beside role and text.

    Args:
        parts: for each special key its values, one for each message.

    Returns:
        The texts of each field that any message has, by its label; bool[t], the messages that have a field with a
        constant, by its label; bool[t], the messages with something that columns cannot tell, or None.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    spelled: dict[str, list[pa.StringArray]] = {}
    constants: dict[str, NDArray[np.bool_]] = {}
    unknown = None
    for name, part in sorted(parts.items(), key=lambda one: TEXT_FIELDS.index(one[0]) if one[0] in TEXT_FIELDS else -1):
        if part.null_count == len(part):
            continue
        texts = as_strings(part) if name in TEXT_FIELDS else None
        if texts is not None:
            if name == "reasoning":
                constants[ALIAS] = not_empty(texts)
            spelled.setdefault("reasoning" if name in REASONING else name, []).append(texts)
        elif name == WEIGHT and pa.types.is_integer(part.type):
            weights = numbers_of(part, null=1)
            constants["weight=0"] = weights == 0
            unknown = _either(unknown, (weights != 0) & (weights != 1))
        else:
            unknown = _either(unknown, not_null(part))
    thoughts = spelled.get("reasoning", [])
    for one, other in combinations(thoughts, 2):
        unknown = _either(unknown, bools_of(pc.fill_null(pc.not_equal(one, other), fill_value=False)))
    labels = [label for label in FIELDS.values() if label in spelled]
    return {label: pc.coalesce(*spelled[label]) for label in labels}, constants, unknown


def _either(one: NDArray[np.bool_] | None, other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return other if one is None else one | other


def _in_columns(key: str, value: Any) -> bool:
    """Return whether columns can hold a value of a special key."""
    return value is None or (key in TEXT_FIELDS and type(value) is str) or (key == WEIGHT and type(value) is int)


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
    if not all(_in_columns(key, message.get(key)) for message in messages for key in other_keys & special):
        return None
    if not all(isinstance(message.get(key), (str, type(None))) for message in messages for key in keys):
        return None
    role_and_text = tuple((key, TEXT) for key in keys)
    if is_bare_list:
        strict = schema(((name, role_and_text),))
        return None if other_keys else JsonSchemas(strict=strict, tolerant=None, value_field=name)
    must_be_null = tuple(
        (key, TEXT if key in TEXT_FIELDS else INTEGER if key == WEIGHT else NULL) for key in sorted(special - {*keys})
    )
    found = schemas_for(record, {name: role_and_text}, {name: (*role_and_text, *must_be_null)}, lists, fields)
    return replace(found, strict=None) if found is not None and other_keys else found
