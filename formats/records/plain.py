"""The short cut for records that are nothing but roles and texts: a batch of them is taken apart at once.

A record costs a few calls into Python when it is read by itself, and next to none among others. So a format says what
it makes of several records if all of them are plain; if one of them is not, each is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from operator import attrgetter, itemgetter
from typing import Any, cast

from formats.conversation import Plain, Shape
from formats.records.fields import FieldMap, are_bare
from formats.records.typed import Reader, Typed, reader_like, turn_type

Together = Callable[[Sequence[Any], FieldMap], tuple[list[Shape], list[Any]] | None]
"""The shapes and the texts of records; None unless all of them are plain."""
MOST_SHAPES = 1 << 14
"""Sequences of roles that are remembered."""


def plain_of(records: Sequence[Any], fields: FieldMap, together: Together) -> Plain:
    """The plain ones of several records, those that are not found by halves."""
    rows: list[int] = []
    shapes: list[Shape] = []
    texts: list[Any] = []
    left = [(0, len(records))]
    while left:
        begin, end = left.pop()
        found = together(records[begin:end], fields)
        if found is not None:
            rows += range(begin, end)
            shapes += found[0]
            texts += found[1]
        elif end - begin > 1:
            middle = (begin + end) // 2
            left += [(middle, end), (begin, middle)]
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
    if fields.columns or not records:
        return None
    known = fields.shapes.setdefault(keys, {})
    get: Callable[[str], Callable[[Any], Any]] = itemgetter
    conversations = records
    try:
        if isinstance(records[0], Typed):
            get, keys = attrgetter, ("role", "text")
            conversations = list(map(attrgetter("turns"), records))
        elif type(records[0]) is dict:
            there = set[str]().union(*records) if max(map(len, records)) > 1 else set(records[0])
            if not are_bare(records, there):
                return None
            conversations = list(map(itemgetter(next(name for name in lists if name in there)), records))
        messages = list(chain.from_iterable(conversations))
        roles, texts = tuple(map(get(keys[0]), messages)), list(map(get(keys[1]), messages))
        if get is itemgetter and max(map(len, messages)) > 2:
            more = special & set[str]().union(*messages)
            if any(message.get(name) is not None for message in messages for name in more):
                return None
        ends = accumulate(map(len, conversations), initial=0)
        sequences = [roles[begin:end] for begin, end in pairwise(ends)]
        shapes = list(map(known.get, sequences))
        if None in shapes:
            learn = partial(_shape_of, fields=fields, names=names, known=known)
            shapes = [known[one] if one in known else learn(one) for one in sequences]
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration):
        return None  # a record is no list of objects, or a message lacks something
    return None if None in shapes else (cast(list[Shape], shapes), texts)


def _shape_of(
    sequence: tuple[str, ...],
    fields: FieldMap,
    names: Mapping[str, str | None],
    known: dict[tuple[str, ...], Shape | None],
) -> Shape | None:
    """The shape for a sequence of roles as records spell them, which is remembered; None for one that is not plain."""
    roles = [fields.roles.get(raw) or names.get(raw) for raw in sequence]
    found = tuple(role for role in roles if role is not None)
    plain = len(found) == len(roles) and set(found) <= PLAIN_ROLES and "assistant" in found
    shape = found if plain else None
    if len(known) < MOST_SHAPES:
        known[sequence] = shape
    return shape


def message_reader(record: Any, lists: Sequence[str], keys: tuple[str, str]) -> Reader | None:
    """A reader for records like this one, if its messages have these two keys."""
    if type(record) is not dict:
        return None
    name = next((name for name in lists if name in record), None)
    if name is None or any(other in record for other in lists if other != name):
        return None
    messages = record[name]
    if type(messages) is not list or not messages or type(messages[0]) is not dict or messages[0].keys() != set(keys):
        return None
    return reader_like(record, [("turns", name, turn_type(*keys))])


PLAIN_ROLES = frozenset({"system", "user", "assistant", "tool"})
