"""OpenAI messages: a list of `{"role", "content"}`, with tools, tool calls, weights and reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import read_json
from sft_shards.formats.records.fields import (
    CALL_PARTS,
    MISSING,
    REASONING_PARTS,
    SYSTEM,
    TEMPLATE_INPUTS,
    TEXT_KEYS,
    TEXT_PARTS,
    FieldMap,
    optional_text,
    refuse_media,
    text,
)
from sft_shards.formats.records.json_schemas import JsonSchemas
from sft_shards.formats.records.message_schemas import REASONING, WEIGHTS, message_schemas
from sft_shards.formats.records.messages import read_message_columns
from sft_shards.formats.records.role_sequences import TEXT_ONLY_ROLES
from sft_shards.formats.records.template_inputs import read_template_inputs
from sft_shards.formats.records.tools import read_tools, tool_call

if TYPE_CHECKING:
    import pyarrow as pa

LISTS = ("messages", "conversations", "conversation", "dialog", "dialogue")
KEYS = ("role", "content")
ROLE_NAMES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
SPECIAL = frozenset({"tool_calls", "function_call", "name", "tool_call_id", "loss", *REASONING, *WEIGHTS})
"""Keys of a message that make it more than a role and a text."""


class OpenAI:
    """`{"messages": [{"role": "user", "content": "…"}, …], "tools": […]}`, or the bare list."""

    name = "openai"
    fields: tuple[str, ...] = ("messages", "tools", "system", "role", "content", *TEMPLATE_INPUTS)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether there is a list of messages whose first one has a role."""
        first = first_message(record, fields)
        return first is not None and fields.look_up(first, "role") is not MISSING

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return a turn for each message, and the tools of `tools` or the older `functions`.

        Raises:
            RecordError: `missing_field`, `wrong_type`, `unknown_role`, `broken_json`, `not_text`, `fractional_weight`,
                or as for any conversation.
        """
        turns = leading_system(record, fields)
        turns += [_turn(message, fields) for message in messages_of(record, fields)]
        beside = read_template_inputs(record, fields)
        return Conversation(turns=tuple(turns), tools=read_tools(record, fields), **beside)

    def unread(self, record: object, fields: FieldMap) -> frozenset[str]:
        """See `MessageFormat.unread`."""
        return unread_keys(record, fields, KEYS)

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        names = _column_names(fields)
        return names and message_schemas(record, fields, lists=names[0], keys=names[1], special=SPECIAL, in_parts=True)

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """See `ColumnarFormat.read_columns`."""
        names = _column_names(fields)
        if names is None:
            return None
        return read_message_columns(
            batch, fields, lists=names[0], keys=names[1], roles=_KNOWN, special=SPECIAL, in_parts=True
        )


_KNOWN = {role: role for role in TEXT_ONLY_ROLES} | {"function": "tool"}


def _column_names(fields: FieldMap) -> tuple[Sequence[str], tuple[str, str]] | None:
    """Return the columns that may hold the messages, and the keys of a message.

    Returns:
        None where one is nested, or read as another field, too.
    """
    lists, role, content = fields.column("messages", LISTS[1:]), fields.column("role"), fields.column("content")
    if not fields.columns.keys() <= {"messages", *KEYS, *TEMPLATE_INPUTS} or not (lists and role and content):
        return None
    keys = role[0], content[0]
    return None if SPECIAL & {*keys} else (lists, keys)


def message_list(record: object, fields: FieldMap) -> Any:
    """Return the list of messages that a record has or is; `MISSING` otherwise."""
    if isinstance(record, Mapping):
        return fields.look_up(record, "messages", LISTS[1:])
    return record if isinstance(record, list) else MISSING


def first_message(record: object, fields: FieldMap) -> Mapping[str, Any] | None:
    """Return the first message if there is a list of messages and it is an object."""
    value = message_list(record, fields)
    return value[0] if isinstance(value, list) and value and isinstance(value[0], Mapping) else None


def messages_of(record: object, fields: FieldMap) -> list[Mapping[str, Any]]:
    """Return the messages.

    Raises:
        RecordError: `missing_field` where there are none, `wrong_type` where one is not an object.
    """
    value = message_list(record, fields)
    if value is MISSING:
        raise RecordError("missing_field", f"none of {', '.join(LISTS)}; name the column with --field messages=COLUMN")
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"messages is {type(value).__name__}, not a list")
    for number, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise RecordError("wrong_type", f"message {number} is {type(message).__name__}, not an object")
    return value


def unread_keys(record: object, fields: FieldMap, keys: tuple[str, str]) -> frozenset[str]:
    """Return the keys of a record's messages that have a value and are not read.

    Args:
        keys: those of a message's role and of its text.
    """
    try:
        messages = messages_of(record, fields)
    except RecordError:
        return frozenset()
    named = {column.partition(".")[0] for column in fields.columns.values()}
    found = {key for message in messages for key, value in message.items() if value is not None}
    return frozenset(found - SPECIAL - {*keys} - named)


def leading_system(record: object, fields: FieldMap) -> list[Turn]:
    """Return a system prompt that stands beside the list of messages as the first turn, if there is one.

    Raises:
        RecordError: `not_text` for a record with pictures or sound, `wrong_type`.
    """
    if not isinstance(record, Mapping):
        return []
    refuse_media(record)
    system = optional_text(fields.look_up(record, SYSTEM[0], SYSTEM[1:]), "system")
    return [Turn(role="system", content=system)] if system else []


def _read_content(value: object, role: str) -> dict[str, Any]:
    """Return a message's content as fields of a turn: the text, and what parts of an assistant's message add to it.

    Templates write reasoning, text and calls in this order. Parts in another order are refused, since rendering them
    would rearrange what was said.

    Raises:
        RecordError: `not_text`, `wrong_type`, `missing_field`, or as for a tool call.
    """
    if value is MISSING or value is None or isinstance(value, str):
        return {"content": value if isinstance(value, str) else None}
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"content is {type(value).__name__}, not text, null or a list of parts")
    reasoning: list[str] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in value:
        kind = "text" if isinstance(part, str) else type(part).__name__
        if isinstance(part, Mapping):
            kind = part.get("type", "text")
        if kind in TEXT_PARTS:
            texts.append(part if isinstance(part, str) else _part_text(part))
        elif role == "assistant" and kind in REASONING_PARTS:
            reasoning.append(_part_text(part, kind))
        elif role == "assistant" and kind in CALL_PARTS:
            calls += _part_calls(part)
        else:
            raise RecordError("not_text", f"a content part is {kind!r}; only text can be trained here")
        if (calls and kind not in CALL_PARTS) or (texts and kind in REASONING_PARTS):
            raise RecordError("wrong_type", f"a {kind!r} part is behind {'a call' if calls else 'text'}")
    found: dict[str, Any] = {"content": "".join(texts) if texts or not calls else None}
    if reasoning:
        found["reasoning"] = "".join(reasoning)
    if calls:
        found["tool_calls"] = tuple(calls)
    return found


def _part_text(part: Mapping[str, Any], *names: str) -> str:
    """Return the text of a content part: the first of its fields of these names, or a usual one, that is not null."""
    found = next((part[name] for name in (*names, *TEXT_KEYS) if part.get(name) is not None), MISSING)
    return text(found, names[0] if names else TEXT_KEYS[0])


def _part_calls(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of a part: Anthropic's `tool_use`, or a `tool_call`, whose `value` may hold them as JSON."""
    if part["type"] == "tool_use":
        if not isinstance(part.get("input"), Mapping):
            raise RecordError("wrong_type", "the input of a tool_use part is not an object")
        return [tool_call({"id": part.get("id"), "function": {"name": part.get("name"), "arguments": part["input"]}})]
    value = part.get("value")
    if value is None:
        value = {name: part[name] for name in ("id", "name", "arguments", "function") if part.get(name) is not None}
    elif isinstance(value, str):
        value = read_json(value, "tool_call")
    return [tool_call(call) for call in (value if isinstance(value, list) else [value])]


def read_weight(message: Mapping[str, Any]) -> int:
    """Return 0 or 1 by `weight`, `loss_weight` or `train`, else by a `loss` that is true or false (default: 1).

    xtuner writes `loss: false`. A `loss` of any other type is a measurement, and ignored.

    Raises:
        RecordError: `fractional_weight`.
    """
    for name in WEIGHTS:
        value = message.get(name)
        if value is not None:
            if value not in (0, 1):
                raise RecordError("fractional_weight", f"{name} is {value!r}; a loss mask holds 0 or 1")
            return int(value)
    return int(message.get("loss") is not False)


def _turn(message: Mapping[str, Any], fields: FieldMap) -> Turn:
    role = fields.role(fields.look_up(message, "role"), ROLE_NAMES)
    beside = read_beside(message)
    found = _read_content(fields.look_up(message, "content"), role)
    if found["content"] is None and role != "assistant":
        raise RecordError("missing_field", f"a {role} turn has no content")
    for name in ("reasoning", "tool_calls"):
        if beside[name] and found.get(name, beside[name]) != beside[name]:
            raise RecordError("wrong_type", f"content parts and the message's own keys differ in {name}")
    return Turn(role=role, **{**beside, **found})


def read_beside(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a message has beside its role and text, as fields of a turn.

    Raises:
        RecordError: `wrong_type`, `fractional_weight`, or as for a tool call.
    """
    if SPECIAL.isdisjoint(message):
        return {"weight": 1, "reasoning": None, "tool_calls": ()}
    calls = message.get("tool_calls") or ()
    if message.get("function_call"):
        calls = (message["function_call"],)
    if not isinstance(calls, (list, tuple)):
        raise RecordError("wrong_type", f"tool_calls is {type(calls).__name__}, not a list")
    thoughts = {name: text(message[name], name) for name in REASONING if message.get(name) is not None}
    reasoning = next(iter(thoughts.values()), None)
    if any(other and other != reasoning for other in thoughts.values()):
        raise RecordError("wrong_type", f"{' and '.join(thoughts)} of a message differ: keep one of them")
    return {
        "reasoning": reasoning,
        "reasoning_alias": bool(thoughts.get("reasoning")),
        "tool_calls": tuple(tool_call(call) for call in calls),
        "name": message["name"] if isinstance(message.get("name"), str) else None,
        "tool_call_id": message["tool_call_id"] if isinstance(message.get("tool_call_id"), str) else None,
        "weight": read_weight(message),
    }
