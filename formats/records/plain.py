"""The short cut for records that are nothing but roles and texts: a batch of them is taken apart at once.

A record costs a few calls into Python when it is read by itself, and next to none among others. So a format says what
it makes of several records if all of them are plain; if one of them is not, each is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from formats.conversation import Plain, Shape
from formats.records.fields import FieldMap, are_bare

Together = Callable[[Sequence[Any], FieldMap], tuple[list[Shape], list[Any]] | None]
"""The shapes and the texts of records; None unless all of them are plain."""
MOST_SHAPES = 1 << 14
"""Sequences of roles that are remembered."""


def plain_of(records: Sequence[Any], fields: FieldMap, together: Together) -> Plain:
    """The plain ones of several records."""
    found = together(records, fields)
    if found is not None:
        return Plain(range(len(records)), *found)
    rows: list[int] = []
    shapes: list[Shape] = []
    texts: list[Any] = []
    for row, record in enumerate(records):
        found = together([record], fields)
        if found is not None:
            rows.append(row)
            shapes += found[0]
            texts += found[1]
    return Plain(rows, shapes, texts)


def messages_together(
    records: Sequence[Any],
    fields: FieldMap,
    *,
    lists: Sequence[str],
    keys: tuple[str, str],
    names: Mapping[str, str | None],
    special: frozenset[str],
) -> tuple[list[Shape], list[Any]] | None:
    """`Together` for records that are lists of messages, or have one.

    Args:
        lists: names that the list of messages may have in a record.
        keys: of a message, for its role and its text.
        names: role as records spell it → one of ours, or None for one that is never plain.
        special: other keys of a message that make it more than a role and a text.
    """
    if fields.columns:
        return None
    conversations = list(records)
    try:
        if set(map(type, records)) == {dict}:
            there = set[str]().union(*records)
            if not are_bare(records, there):
                return None
            conversations = list(map(itemgetter(next(name for name in lists if name in there)), records))
        if set(map(type, conversations)) != {list}:
            return None
        messages = list(chain.from_iterable(conversations))
        roles, texts = list(map(itemgetter(keys[0]), messages)), list(map(itemgetter(keys[1]), messages))
        more = special & set[str]().union(*messages) if max(map(len, messages)) > 2 else ()
        if any(message.get(name) is not None for message in messages for name in more):
            return None
        shapes: list[Shape] = []
        begin = 0
        for length in map(len, conversations):
            key = (keys[0], *roles[begin : begin + length])
            shape = fields.shapes[key] if key in fields.shapes else _learn_shape(key, fields, names)
            if shape is None:
                return None
            shapes.append(shape)
            begin += length
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration):
        return None  # a message is no object, there is none, or it lacks something
    return shapes, texts


def _learn_shape(key: tuple[str, ...], fields: FieldMap, names: Mapping[str, str | None]) -> Shape | None:
    """The shape for a sequence of roles as records spell them (behind the key they stand under); None for no plain
    one."""
    roles = [fields.roles.get(raw) or names.get(raw) for raw in key[1:]]
    shape = tuple(role for role in roles if role is not None)
    plain = shape if len(shape) == len(roles) and set(shape) <= PLAIN_ROLES and "assistant" in shape else None
    if len(fields.shapes) < MOST_SHAPES:
        fields.shapes[key] = plain
    return plain


PLAIN_ROLES = frozenset({"system", "user", "assistant", "tool"})
