"""Traced values of arguments: numbers and lists, of which nothing is known, and the members of an object.

A `TracedNumber` and a `TracedList` stand for a value of which a text of the conversation is the JSON (see `layouts`).
They say of what type they are; a number prints as that text, since Python writes whole numbers and floats as JSON does.
Whatever asks for more raises `Untraceable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Number
from typing import Any, NoReturn, TypeVar

from sft_shards.formats.templates.traced_text import HARMLESS, Trace, TracedText, Untraceable, refuse, untraced

Own = TypeVar("Own", bound="TracedValue")


class TracedValue:
    """A value that stands in a conversation as JSON."""

    number: int
    """Of its text."""
    trace: Trace

    @classmethod
    def value(cls: type[Own], number: int, trace: Trace) -> Own:
        """Return the traced value whose JSON is text `number` of the conversation."""
        new = cls()
        new.number, new.trace = number, trace
        return new


class TracedNumber(TracedValue):
    """A whole number or a float."""

    def __str__(self) -> str:
        return TracedText.message(self.number, self.trace)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, list, tuple, dict, type(None))):
            return False
        raise Untraceable("__eq__")

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(name)


for _name in {*dir(int), *dir(float), "__repr__"} - HARMLESS | {"__repr__"}:
    if _name not in vars(TracedNumber) or _name == "__hash__":
        setattr(TracedNumber, _name, refuse(_name))
Number.register(TracedNumber)  # jinja2's test `number` asks for it


class TracedList(TracedValue, list[Any]):
    """A list that is not empty."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, int, float, tuple, dict, type(None))) or other == []:
            return False
        raise Untraceable("__eq__")

    def __ne__(self, other: object) -> bool:
        return not self == other


for _name in set(dir(list)) - HARMLESS | {"__repr__", "__str__", "__format__"}:
    if _name not in vars(TracedList) or _name == "__hash__":
        setattr(TracedList, _name, refuse(_name))


class TracedView:
    """What `keys`, `values` and `items` of an object with traced members return: its items in order, and their number.

    There is at least one.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        yield from self._items

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self._items)

    def __len__(self) -> int:
        return len(self._items)


for _name in set(dir({}.items())) - HARMLESS | {"__repr__", "__str__", "__format__", "__contains__"}:
    if _name not in vars(TracedView) or _name == "__hash__":
        setattr(TracedView, _name, refuse(_name))


class SafeText(TracedText):
    """A traced text that is not to be escaped (`safe`). What it is added to would be: it is only printed or asked."""

    def __str__(self) -> str:
        return TracedText.of(untraced(self), self.trace)


SAFE = HARMLESS | {"__str__", "__bool__", "__contains__", "__eq__", "__ne__", "startswith", "endswith"}
for _name in {*dir(str), "__radd__"} - SAFE:
    setattr(SafeText, _name, refuse(_name))
