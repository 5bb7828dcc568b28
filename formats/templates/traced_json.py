"""Traced values: arguments of calls and parts of schemas that a template writes as JSON without looking into them.

A `TracedJson` is an object of which nothing is known but that it is one, and not empty. `tojson` of it, or of something
that holds it, prints a gap for its JSON (see `traced_text`). Whatever looks into it raises `Untraceable`.

Of a `TracedMapping` the members are known, in their order, by traced keys and values. It may be gone through; what
depends on what the keys are (their order as words, whether one of them is there) raises `Untraceable`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any, NoReturn

from sft_shards.formats.templates.budget import SCALARS
from sft_shards.formats.templates.traced_parts import Unknown
from sft_shards.formats.templates.traced_text import HARMLESS, ToJson, Trace, TracedText, Untraceable, untraced
from sft_shards.formats.templates.traced_values import TracedList, TracedNumber, TracedValue, TracedView

STAND_IN = re.compile(r'"traced leaf (\d+)"')


NO_OBJECT = (str, int, float, list, tuple, type(None))


class TracedJson(TracedValue, dict[str, Any]):
    """An object that is not empty."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NO_OBJECT) and other != {}:
            self.look("__eq__")
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def by_key(self) -> list[tuple[str, Any]]:
        """Return the members in the order of their keys."""
        self.look("by_key")

    def look(self, name: str) -> NoReturn:
        """Note that the template looks into this value, and stop."""
        self.trace.looked_into.add(self.number)
        raise Untraceable(name)


def _looks(name: str) -> Callable[..., NoReturn]:
    def look(self: TracedJson, *_args: Any, **_kwargs: Any) -> NoReturn:
        self.look(name)

    return look


for _name in set(dir(dict)) - HARMLESS:
    if _name not in vars(TracedJson) or _name == "__hash__":
        setattr(TracedJson, _name, _looks(_name))


class TracedMapping(TracedJson):
    """An object that is not empty, with its members: traced keys, no two alike, and values."""

    members: list[tuple[str, Any]]
    order: list[int]

    @classmethod
    def empty(cls, trace: Trace, order: list[int]) -> TracedMapping:
        """Return the object without the members that it is about to be given.

        Args:
            order: their positions in the order of their keys, lower case, as `dictsort` has them; [] if not known.
        """
        new = cls()
        new.members, new.trace, new.order = [], trace, order
        return new

    def by_key(self) -> list[tuple[str, Any]]:
        """Return the members in the order of their keys."""
        if len(self.members) > 1 and not self.order:
            self.trace.sorts = True
            raise Untraceable("by_key")
        return [self.members[place] for place in self.order] or self.members

    def look(self, name: str) -> NoReturn:
        """Stop: nothing more will be known of the members."""
        raise Untraceable(name)

    def __setitem__(self, key: str, value: Any) -> None:
        self.members.append((key, value))

    def __getitem__(self, key: Any) -> Any:
        for own, value in self.members:
            if isinstance(key, TracedText) and untraced(own) == untraced(key):
                return value
        raise Untraceable("__getitem__")

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, which must be one of its own."""
        return self[key]

    def __iter__(self) -> Iterator[str]:
        return iter([key for key, _ in self.members])

    def __len__(self) -> int:
        return len(self.members)

    def keys(self) -> TracedView:  # type: ignore[override]
        """Return the keys."""
        return TracedView(list(self))

    def values(self) -> TracedView:  # type: ignore[override]
        """Return the values."""
        return TracedView([value for _, value in self.members])

    def items(self) -> TracedView:  # type: ignore[override]
        """Return pairs of keys and values."""
        return TracedView(self.members)


Leaf = TracedText | TracedJson | TracedList | TracedNumber
TRACED = (TracedText, TracedJson, TracedList, TracedNumber, TracedView, Unknown)


def traced_tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return a value as JSON, with gaps for what is traced in it."""
    leaves: list[Leaf] = []
    held = _without_leaves(value, leaves, sort_keys=bool(sort_keys))
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
            of_json=not isinstance(leaf, TracedText),
            ensure_ascii=bool(ensure_ascii),
            indent=indent,
            separators=None if separators is None else (separators[0], separators[1]),
            sort_keys=bool(sort_keys),
            margin=len(line) - len(line.lstrip(" ")) if indent is not None else 0,
        )
        if isinstance(leaf, TracedText):
            return leaf.as_json(change)
        plain = change.is_canonical or isinstance(leaf, TracedNumber)
        return leaf.trace.gap(leaf.number, () if plain else (change,))

    return TracedText.of(STAND_IN.sub(gap, text), leaves[0].trace)


def _without_leaves(value: Any, leaves: list[Leaf], *, sort_keys: bool) -> Any:
    """Return a copy of a value with a stand-in for each traced leaf; keys must not be traced, but in arguments."""
    if isinstance(value, TracedMapping):
        if sort_keys:
            raise Untraceable
        value = {_without_leaves(key, leaves, sort_keys=False): item for key, item in value.members}
    elif isinstance(value, (TracedText, TracedJson, TracedList, TracedNumber)):
        leaves.append(value)
        return f"traced leaf {len(leaves) - 1}"
    if isinstance(value, Unknown):
        raise Untraceable
    if isinstance(value, dict):
        return {key: _without_leaves(item, leaves, sort_keys=sort_keys) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_leaves(item, leaves, sort_keys=sort_keys) for item in value]
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
        if isinstance(value, (*TRACED, Iterator)):
            return True
        if isinstance(value, (dict, list, tuple, KeysView, ValuesView, ItemsView)) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value.values() if isinstance(value, dict) else value)
    return False
