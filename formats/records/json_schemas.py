"""Arrow schemas for reading JSON records into columns.

pyarrow's JSON reader is fast because it is told the type of every field beforehand. A format looks at one record and
says which schemas suit it (`JsonSchemas`); records that do not match are noticed by the reader and read one by one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sft_shards.formats.records.fields import REASONING_PARTS, SYSTEM, TEXT_KEYS, FieldMap

if TYPE_CHECKING:
    import pyarrow as pa

FieldKind = str | tuple[tuple[str, str], ...]
"""What a field holds: one of the kinds below, or a list of messages, given by the kinds of their fields."""
TEXT, NUMBER, NULL, EMPTY_LIST, CALLS = "text", "number", "null", "empty_list", "calls"
TEXT_PARTS, PARTS, CALL = "text_parts", "parts", "call"
"""Of these, `CALLS` are a message's `tool_calls`, with arguments as texts, `CALL` a `function_call`, `TEXT_PARTS` a
content's parts that have a type and a text, and `PARTS` those with any of `PART_KEYS` and what a call has."""
PART_KEYS = ("type", *TEXT_KEYS, *REASONING_PARTS)
CALL_OBJECTS = ("input", "arguments", "value")
"""Keys of a part that is a call, of which a value may be an object."""
OBJECT_MARK = "\0" + secrets.token_hex(8)
"""What no text of a record begins with: it is another one in every process."""


@dataclass(frozen=True, kw_only=True)
class JsonSchemas:
    """Two Arrow schemas for the same records. A reader tries `strict`, which is faster, and then `tolerant`."""

    strict: pa.Schema | None
    """The fields of the record that was looked at, nested ones included: any other field is an error. None where it has
    fields that are ignored."""
    tolerant: pa.Schema | None
    """Also the fields that must have no value, with type null; fields not named here are ignored. None where every
    field has to be known."""
    value_field: str = ""
    """Where a record is a bare value and not an object: the field that it is wrapped in before it is read."""
    json_fields: tuple[str, ...] = ()
    """Fields of any type, which a reader adds to the columns as texts in JSON; "" where a record has none."""
    objects: frozenset[str] = frozenset()
    """Keys at any depth, of which a value that is an object is read as a text: `OBJECT_MARK` and what
    `layouts.json_text` writes. A value of any other type is read as the schemas say."""
    parts_key: str = ""
    """The key of contents that are lists of parts here. A text in its place is read as a list of one part, since other
    records of the file may have texts. "" where they are texts."""
    in_parts: JsonSchemas | None = None
    """Where they are texts: the schemas for records like this one, should others have lists of parts."""


@lru_cache(maxsize=1024)
def schema(fields: tuple[tuple[str, FieldKind], ...]) -> pa.Schema:
    """Return Arrow's schema for fields of given kinds."""
    import pyarrow as pa

    types = {TEXT: pa.string(), NUMBER: pa.float64(), NULL: pa.null(), EMPTY_LIST: pa.list_(pa.null())}
    named = pa.struct([("name", pa.string()), ("arguments", pa.string())])
    types[CALLS] = pa.list_(pa.struct([("id", pa.string()), ("type", pa.string()), ("function", named), *named]))
    types[TEXT_PARTS] = pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))
    function = [(key, pa.string()) for key in ("id", "name", "arguments")] + [("function", pa.null())]
    types[CALL] = pa.struct(function)
    types[PARTS] = pa.list_(pa.struct([(key, pa.string()) for key in (*PART_KEYS, "input")] + function))

    def arrow_type(kind: FieldKind) -> pa.DataType:
        return types[kind] if isinstance(kind, str) else pa.list_(pa.struct([(key, types[one]) for key, one in kind]))

    return pa.schema([(name, arrow_type(kind)) for name, kind in fields])


def schemas_for(
    record: Mapping[str, Any],
    strict: Mapping[str, FieldKind],
    tolerant: Mapping[str, FieldKind],
    must_be_empty: Iterable[str],
    fields: FieldMap,
    json_fields: tuple[str, ...] = (),
) -> JsonSchemas | None:
    """Return the schemas for records like this one.

    Args:
        strict: the kind of each field that records like this one need.
        tolerant: the kinds of the same fields in records that may hold other fields too.
        must_be_empty: other fields that have no value in a text-only record, beside those of `FieldMap.beside`.
        fields: which columns the user renamed.
        json_fields: other fields that are read as texts in JSON.

    Returns:
        None where this record is not text-only.
    """
    empty = {*fields.beside(), *must_be_empty} - {*json_fields}
    others: dict[str, FieldKind] = {**dict.fromkeys(empty, NULL), **dict.fromkeys(SYSTEM, TEXT)}
    for name in record.keys() & others.keys() - strict.keys():
        value = record[name]
        if value and name not in SYSTEM:
            return None
        others[name] = TEXT if value == "" or name in SYSTEM else EMPTY_LIST if value == [] else NULL
    known = record.keys() <= strict.keys()
    return JsonSchemas(
        strict=schema(tuple(strict.items())) if known else None,
        tolerant=schema(tuple({**dict(sorted(others.items())), **tolerant}.items())),
        json_fields=json_fields,
    )
