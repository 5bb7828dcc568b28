"""Tools on offer and calls of tools, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import parse_json, read_json
from sft_shards.formats.records.fields import MISSING, FieldMap


def read_tools(record: object, fields: FieldMap) -> tuple[dict[str, Any], ...]:
    """Return the tools on offer, each as `{"type": "function", "function": {…}}`; they may be a JSON text.

    Raises:
        RecordError: `broken_json`, `nested_too_deeply`, `wrong_type`.
    """
    value = fields.look_up(record, "tools", ("functions",)) if isinstance(record, Mapping) else MISSING
    if isinstance(value, str):
        value = read_json(value, "tools") if value.strip() else None
    if value is MISSING or value is None:
        return ()
    if not isinstance(value, list) or not all(type(tool) is dict or isinstance(tool, Mapping) for tool in value):
        raise RecordError("wrong_type", "tools is not a list of objects")
    return tuple(_tool(number, tool) for number, tool in enumerate(value))


def _tool(number: int, tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool on offer in OpenAI's form. In a table, a field that only other tools have is null."""
    if tool.get("function") is None and tool.get("name") is not None:
        return {"type": "function", "function": {name: value for name, value in tool.items() if name != "function"}}
    if "function" in tool and type(tool["function"]) is not dict and not isinstance(tool["function"], Mapping):
        kind = type(tool["function"]).__name__
        raise RecordError("wrong_type", f"function of tool {number} is {kind}, not an object")
    return dict(tool)


def tool_call(raw: object) -> dict[str, Any]:
    """Return a tool call in OpenAI's form: id, type and function, in this order, since some templates print it whole.

    Arguments that are a JSON text are parsed, since templates print them as JSON. A text that is not JSON (code for an
    interpreter, say) stays a text. In a table, a function that only other calls have is null.

    Raises:
        RecordError: `wrong_type`, `nested_too_deeply`.
    """
    if not isinstance(raw, Mapping):
        raise RecordError("wrong_type", f"a tool call is {type(raw).__name__}, not an object")
    function = raw if raw.get("function") is None else raw["function"]
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RecordError("wrong_type", "a tool call has no function name")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = read_arguments(arguments)
    out: dict[str, Any] = {"id": raw["id"]} if isinstance(raw.get("id"), str) else {}
    return out | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def read_arguments(text: str) -> Any:
    """Return the arguments of a call that are a text: their value where they are JSON, else the text.

    Raises:
        RecordError: `nested_too_deeply`.
    """
    try:
        return parse_json(text) if text.strip() else {}
    except RecordError:
        raise
    except ValueError:
        return text
