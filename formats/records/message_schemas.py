"""Arrow schemas of records with a list of messages: which of them columns can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sft_shards.formats.records.fields import CALL_PARTS, FieldMap
from sft_shards.formats.records.json_schemas import (
    CALL,
    CALL_OBJECTS,
    CALLS,
    NULL,
    NUMBER,
    PART_KEYS,
    PARTS,
    TEXT,
    TEXT_PARTS,
    JsonSchemas,
    schema,
    schemas_for,
)

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Spellings of a message's reasoning, of which those that are not null say the same."""
TEXT_FIELDS = (*REASONING, "name", "tool_call_id")
"""Keys of a message whose texts are read as columns, too."""
WEIGHTS = ("weight", "loss_weight", "train")
"""Spellings of a message's weight, of which the first that is not null counts."""
TOOL_CALLS, FUNCTION_CALL, TOOLS, ARGUMENTS = "tool_calls", "function_call", "tools", "arguments"
PART_FIELDS = (*PART_KEYS, "id", "name", *CALL_OBJECTS)
"""Keys of a part that are read."""


def _in_columns(key: str, value: Any) -> bool:
    """Return whether columns can hold a value of a special key."""
    if key == FUNCTION_CALL and type(value) is dict:
        return _is_function(value) and value.get("function") is None and type(value.get("id")) in (str, type(None))
    if key == TOOL_CALLS and type(value) is list:
        return all(type(call) is dict and _is_function(call.get("function") or call) for call in value)
    return (
        value is None or (key in TEXT_FIELDS and type(value) is str) or (key in WEIGHTS and type(value) in (int, float))
    )


def _is_function(value: Any) -> bool:
    return type(value) is dict and type(value.get(ARGUMENTS)) in (str, dict)


def _content_kind(messages: Sequence[Mapping[str, Any]], key: str, *, in_parts: bool) -> str | None:
    """Return what the contents of a record are: texts, or lists of text parts; None where columns cannot hold them."""
    contents = [message[key] for message in messages if message.get(key) is not None]
    kinds = {*map(type, contents)}
    if kinds <= {str}:
        return TEXT
    lists = [content for content in contents if type(content) is list]
    mixed = kinds == {str, list} and key not in PART_FIELDS
    parts = [part for content in lists for part in content]
    if not in_parts or not (kinds == {list} or mixed) or not all(map(_is_part, parts)):
        return None
    return TEXT_PARTS if {key for part in parts for key in part} <= {"type", "text"} else PARTS


def _is_part(value: Any) -> bool:
    """Return whether columns can hold a value as a part of a content."""
    if type(value) is not dict:
        return False
    objects = CALL_OBJECTS if value.get("type") in CALL_PARTS else ()
    return value.get("function") is None and all(
        value.get(key) is None or type(value[key]) is str or (type(value[key]) is dict and key in objects)
        for key in PART_FIELDS
    )


def _objects(message: Mapping[str, Any], content: str) -> set[str]:
    """Return the keys whose value is an object in a call of a message that columns can hold.

    Args:
        content: the key of its content.
    """
    calls = [call.get("function") or call for call in message.get(TOOL_CALLS) or ()]
    calls += [message[FUNCTION_CALL]] if message.get(FUNCTION_CALL) else []
    value = message.get(content)
    parts: Sequence[Any] = value if type(value) is list else ()
    return {key for call in (*calls, *parts) for key in CALL_OBJECTS if type(call.get(key)) is dict}


def message_schemas(
    record: Any,
    fields: FieldMap,
    *,
    lists: Sequence[str],
    keys: tuple[str, str],
    special: frozenset[str],
    in_parts: bool = False,
) -> JsonSchemas | None:
    """Return the schemas for records like this one, which has a list of messages or is one.

    The arguments are those of `read_message_columns`; see `ColumnarFormat.json_schemas`.

    Args:
        in_parts: whether a content may be a list of parts.
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
    kind = _content_kind(messages, keys[1], in_parts=in_parts)
    if kind is None or not all(isinstance(message.get(keys[0]), (str, type(None))) for message in messages):
        return None
    kinds = {
        **dict.fromkeys(TEXT_FIELDS, TEXT),
        **dict.fromkeys(WEIGHTS, NUMBER),
        TOOL_CALLS: CALLS,
        FUNCTION_CALL: CALL,
    }
    known = other_keys <= kinds.keys() & special
    objects = frozenset[str]().union(*(_objects(message, keys[1]) for message in messages))
    if objects & {name, *keys}:
        return None

    def schemas_of(kind: str) -> JsonSchemas | None:
        own = ((keys[0], TEXT), (keys[1], kind), *((key, kinds[key]) for key in sorted(other_keys) if known))
        if is_bare_list:
            return JsonSchemas(strict=schema(((name, own),)), tolerant=None, value_field=name) if known else None
        others = tuple((key, kinds.get(key, NULL)) for key in sorted(special - {*keys}))
        any_kind = ((keys[0], TEXT), (keys[1], PARTS if kind == TEXT_PARTS else kind))
        found = schemas_for(record, {name: own}, {name: (*any_kind, *others)}, lists, fields, (TOOLS,))
        return found and replace(found, strict=found.strict if known else None)

    found = schemas_of(kind)
    if found is None or not in_parts or keys[1] in PART_FIELDS:
        return found and replace(found, objects=objects)
    both = {"in_parts": schemas_of(TEXT_PARTS)} if kind == TEXT else {"parts_key": keys[1]}
    return replace(found, objects=objects, **both)
