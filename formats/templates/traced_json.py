"""Traced values: arguments of calls and parts of schemas that a template writes as JSON without looking into them.

A `TracedJson` is an object of which nothing is known but that it is one, and not empty. `tojson` of it, or of something
that holds it, prints a gap for its JSON (see `traced_text`). Whatever looks into it raises `Untraceable`.
"""

from __future__ import annotations

import json
import re
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from sft_shards.formats.templates.budget import SCALARS
from sft_shards.formats.templates.traced_parts import Unknown
from sft_shards.formats.templates.traced_text import HARMLESS, ToJson, Trace, TracedText, Untraceable, refuse

STAND_IN = re.compile(r'"traced leaf (\d+)"')


class TracedJson(dict[str, Any]):
    """An object that is not empty."""

    number: int
    trace: Trace

    @classmethod
    def value(cls, number: int, trace: Trace) -> TracedJson:
        """Return the traced value whose JSON is text `number` of the conversation."""
        new = cls()
        new.number, new.trace = number, trace
        return new

    def __bool__(self) -> bool:
        return True


for _name in set(dir(dict)) - HARMLESS:
    if _name not in vars(TracedJson):
        setattr(TracedJson, _name, refuse(_name))


def traced_tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return a value as JSON, with gaps for what is traced in it."""
    leaves: list[TracedText | TracedJson] = []
    held = _without_leaves(value, leaves)
    text = json.dumps(held, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if not leaves:
        return text
    if type(indent) not in (int, type(None)) or type(separators) not in (list, tuple, type(None)):
        raise Untraceable
    if len(STAND_IN.findall(text)) != len(leaves):
        raise Untraceable

    def gap(found: re.Match[str]) -> str:
        leaf = leaves[int(found[1])]
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        change = ToJson(
            of_json=isinstance(leaf, TracedJson),
            ensure_ascii=bool(ensure_ascii),
            indent=indent,
            separators=None if separators is None else (separators[0], separators[1]),
            sort_keys=bool(sort_keys),
            margin=len(line) - len(line.lstrip(" ")) if indent is not None else 0,
        )
        if isinstance(leaf, TracedText):
            return leaf.as_json(change)
        return leaf.trace.gap(leaf.number, () if change.is_canonical else (change,))

    return TracedText.of(STAND_IN.sub(gap, text), leaves[0].trace)


def _without_leaves(value: Any, leaves: list[TracedText | TracedJson]) -> Any:
    """Return a copy of a value with a stand-in for each traced leaf; keys must not be traced."""
    if isinstance(value, (TracedText, TracedJson)):
        leaves.append(value)
        return f"traced leaf {len(leaves) - 1}"
    if isinstance(value, Unknown):
        raise Untraceable
    if isinstance(value, dict):
        return {key: _without_leaves(item, leaves) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_leaves(item, leaves) for item in value]
    return value


def holds_traced(value: Any) -> bool:
    """Return whether something traced is in a value, however deep in containers; each of these is looked at once.

    An iterator may hold anything, and looking would use it up.
    """
    seen: set[int] = set()
    stack = [value]
    while stack:
        value = stack.pop()
        if type(value) in SCALARS:
            continue
        if isinstance(value, (TracedText, TracedJson, Unknown, Iterator)):
            return True
        if isinstance(value, (dict, list, tuple, KeysView, ValuesView, ItemsView)) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value.values() if isinstance(value, dict) else value)
    return False
