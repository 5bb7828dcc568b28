"""Calls and tools as JSON texts: what `json_outlines` takes them apart to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import RecordError
from sft_shards.formats.json_outlines import Rule, take_json_apart
from sft_shards.formats.layouts import Parts, json_text, take_arguments_apart, take_tools_apart
from sft_shards.formats.nesting import is_shallow, parse_json
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.records.tools import read_arguments, read_tools

if TYPE_CHECKING:
    import pyarrow as pa

OWN_NAMES = FieldMap()
"""Tools in a column of the user's own name are not read here."""


def json_objects(texts: pa.StringArray) -> tuple[NDArray[np.bool_], pa.StringArray]:
    """Return which texts are an object in JSON, bool[n], and these as `layouts.json_text` writes them."""
    parts = take_json_apart(texts, OBJECTS_RULE)
    return parts.layout_ids >= 0, parts.texts


def _object(text: str) -> Parts | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    taken = json_text(value)
    return (("json",), [taken]) if type(value) is dict and is_shallow(value) and is_unicode(taken) else None


def _apart(text: str) -> Parts | None:
    """Return label and text of the arguments of a call, which are a text in a record; None where they have none."""
    try:
        value = read_arguments(text)
        label, taken = take_arguments_apart(value)
    except (TypeError, ValueError):
        return None
    if not label or not is_shallow(value) or not is_unicode(taken):
        return None
    return (label,), [taken] if taken else []


def is_unicode(text: str) -> bool:
    """Return whether a text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _offers(text: str) -> Parts | None:
    """Return the labels and texts of tools in JSON; None where they have none, or may be refused."""
    try:
        tools = read_tools({"tools": text}, OWN_NAMES)
        taken = take_tools_apart(tools)
    except (RecordError, TypeError, ValueError, AttributeError, KeyError):
        return None
    return taken if taken is not None and is_shallow(tools) and is_unicode("".join([*taken[0], *taken[1]])) else None


def _tool_names(tools: Any) -> list[Any]:
    """Return the names of tools in the value of their JSON."""
    return [tool.get("function", tool).get("name") for tool in tools]


OBJECTS_RULE = Rule(take_apart=_object)
ARGUMENTS_RULE = Rule(take_apart=_apart)
TOOLS_RULE = Rule(take_apart=_offers, names=_tool_names, with_types=True)
