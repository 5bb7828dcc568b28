"""ShareGPT: a list of `{"from", "value"}`, with function calls and what they returned as turns of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import read_json
from sft_shards.formats.records.fields import MISSING, TEMPLATE_INPUTS, FieldMap, text
from sft_shards.formats.records.json_schemas import JsonSchemas
from sft_shards.formats.records.message_schemas import message_schemas
from sft_shards.formats.records.messages import read_message_columns
from sft_shards.formats.records.openai import (
    LISTS,
    SPECIAL,
    first_message,
    leading_system,
    messages_of,
    read_beside,
    unread_keys,
)
from sft_shards.formats.records.role_sequences import CALLING
from sft_shards.formats.records.template_inputs import read_template_inputs
from sft_shards.formats.records.tools import read_tools, tool_call

if TYPE_CHECKING:
    import pyarrow as pa

KEYS = ("from", "value")
ROLE_NAMES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
    CALLING: CALLING,
}


class ShareGPT:
    """`{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "tools": "[…]"}`."""

    name = "sharegpt"
    fields: tuple[str, ...] = ("messages", "tools", "system", *TEMPLATE_INPUTS)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether there is a list of turns whose first one has `from` and `value`."""
        first = first_message(record, fields)
        return first is not None and {"from", "value"} <= set(first)

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return a turn for each entry; a `function_call` is an assistant turn that is all tool calls.

        Raises:
            RecordError: as for OpenAI's messages.
        """
        turns = leading_system(record, fields)
        for entry in messages_of(record, fields):
            role = fields.role(entry.get("from"), ROLE_NAMES)
            value = text(entry.get("value", MISSING), "value")
            beside = read_beside(entry)
            if role == CALLING:
                if beside["tool_calls"]:
                    raise RecordError("wrong_type", "a function_call turn has tool calls beside its value")
                calls = read_json(value, "function_call")
                calls = calls if isinstance(calls, list) else [calls]
                beside["tool_calls"] = tuple(tool_call(call) for call in calls)
                turns.append(Turn(role="assistant", **beside))
            else:
                turns.append(Turn(role=role, content=value, **beside))
        more = read_template_inputs(record, fields)
        return Conversation(turns=tuple(turns), tools=read_tools(record, fields), **more)

    def unread(self, record: object, fields: FieldMap) -> frozenset[str]:
        """See `MessageFormat.unread`."""
        return unread_keys(record, fields, KEYS)

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        lists = _list_columns(fields)
        return message_schemas(record, fields, lists=lists, keys=KEYS, special=SPECIAL) if lists else None

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """See `ColumnarFormat.read_columns`."""
        lists = _list_columns(fields)
        if not lists:
            return None
        return read_message_columns(batch, fields, lists=lists, keys=KEYS, roles=ROLE_NAMES, special=SPECIAL)


def _list_columns(fields: FieldMap) -> tuple[str, ...]:
    return fields.column("messages", LISTS[1:]) if fields.columns.keys() <= {"messages", *TEMPLATE_INPUTS} else ()
