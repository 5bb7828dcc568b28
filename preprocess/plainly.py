"""The short cut from JSON to roles and texts: a batch of records is read at once, by parsers that are fast and strict.

What they refuse is looked at one record at a time, and what is refused then is for the slow parser, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from formats.conversation import Plain
from formats.records import FieldMap, PlainFormat


def read_plain(format_: PlainFormat, records: Sequence[Any], fields: FieldMap) -> Plain:
    """What a format finds plain among records: JSON texts, values of tables, or errors."""
    typed = _typed(format_, records)
    if typed is not None:
        return format_.plain(typed, fields)
    values = _values(records)
    if None not in values:
        return format_.plain(values, fields)
    known = [at for at, value in enumerate(values) if value is not None]
    found = format_.plain([values[at] for at in known], fields)
    return Plain([known[row] for row in found.rows], found.shapes, found.texts)


def _typed(format_: PlainFormat, records: Sequence[Any]) -> Sequence[Any] | None:
    """All of them, read as the first one looks."""
    if set(map(type, records)) != {bytes} or not hasattr(format_, "reader"):
        return None
    reader = format_.reader(_value(records[0]))
    return None if reader is None else reader.read(records)


def _values(records: Sequence[Any]) -> list[Any]:
    """The values of JSON texts that orjson reads, None for others."""
    try:
        return list(map(orjson.loads, records))
    except (orjson.JSONDecodeError, TypeError):
        return [_value(record) for record in records]


def _value(record: Any) -> Any:
    try:
        return orjson.loads(record) if type(record) is bytes else record
    except orjson.JSONDecodeError:
        return None
