"""JSON read straight into objects with the fields that a plain record has, and nothing else.

An object of known fields takes half of what a dict of texts takes to make, to look into and to give back. Whatever
is not as it was said (another field, a text that is none) ends the reading of all records that are read together;
nothing is skipped, so no part of a record goes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, cast

import msgspec

from formats.records.fields import is_beside

SPACE = b" \t\r\n"
FIRST, LAST = itemgetter(0), itemgetter(-1)
OPTIONAL = (str | None,)
STRICT: dict[str, Any] = {"gc": False, "forbid_unknown_fields": True}


class Typed(msgspec.Struct, gc=False):
    """A record of known fields."""


class Reader:
    """Reads records that all have the fields of one of them.

    Args:
        fields: (attribute, name in the JSON, type); those of a type in `OPTIONAL` may be missing.
        others: names of fields that say nothing here and are let be.
    """

    def __init__(self, fields: Sequence[tuple[str, str, Any]], others: Sequence[str]) -> None:
        needed = [(attribute, kind) for attribute, _, kind in fields if kind not in OPTIONAL]
        optional = [(attribute, kind, None) for attribute, _, kind in fields if kind in OPTIONAL]
        names = {attribute: name for attribute, name, _ in fields}
        for number, name in enumerate(others):
            optional.append((f"other{number}", Any, None))
            names[f"other{number}"] = name
        record = msgspec.defstruct("Record", [*needed, *optional], bases=(Typed,), rename=names, **STRICT)
        self._decoder = msgspec.json.Decoder(record)

    def read(self, records: Sequence[bytes]) -> list[Typed] | None:
        """The objects of several JSON texts; None if one of them is anything else.

        They are given to the decoder with a newline in between, which it takes for white space. Each begins with
        an opening brace and ends with a closing one, and nowhere inside of a JSON text may one brace follow the
        other with white space between: so each holds one object or more, and as many came out as there are texts.
        """
        texts = records
        if not _are_braced(texts):
            texts = [text.strip(SPACE) for text in records]
            if not _are_braced(texts):
                return None
        try:
            found = self._decoder.decode_lines(b"\n".join(texts))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return cast(list[Typed], found) if len(found) == len(texts) else None


def _are_braced(texts: Sequence[bytes]) -> bool:
    return all(texts) and set(map(FIRST, texts)) == set(b"{") and set(map(LAST, texts)) == set(b"}")


@lru_cache(maxsize=256)
def _reader(fields: tuple[tuple[str, str, Any], ...], others: tuple[str, ...]) -> Reader | None:
    try:
        return Reader(fields, others)
    except (ValueError, TypeError):  # a name that cannot be written down as it is
        return None


def reader_like(record: Mapping[str, Any], fields: Sequence[tuple[str, str, Any]]) -> Reader | None:
    """A reader for records with these fields and the others of this one; None where one of the others may matter."""
    names = {name for _, name, _ in fields}
    others = tuple(sorted(record.keys() - names))
    return None if any(map(is_beside, others)) else _reader(tuple(fields), others)


@lru_cache(maxsize=16)
def turn_type(role: str, text: str) -> Any:
    """A list of messages with two fields."""
    names = {"role": role, "text": text}
    return list[msgspec.defstruct("Message", [("role", str), ("text", str)], rename=names, **STRICT)]  # type: ignore[misc]
