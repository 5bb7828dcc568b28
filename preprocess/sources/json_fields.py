"""A field of JSON objects as JSON texts, cut out of the bytes: its values may be of any type."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.arrow_arrays import string_array
from sft_shards.formats.json_bytes import beside
from sft_shards.formats.records.arrow_columns import slice_texts, take_texts
from sft_shards.preprocess.sources.raw_records import SPACE, JsonBatch

if TYPE_CHECKING:
    import pyarrow as pa

ESCAPED_LETTER = re.compile(rb"\\u00[67]")
"""How a letter of ASCII begins that is escaped, which a key may hold as well."""
DECODER = json.JSONDecoder()


class NotJsonError(ValueError):
    """An object of which a value is not JSON.

    Attributes:
        row: which one.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"object {row} is not JSON")
        self.row = row


def json_fields(texts: JsonBatch, name: str) -> pa.StringArray | None:
    """Return for each object the JSON of a field's value; "" where it has no such field, or null.

    A text in JSON is returned as that text: `[1]` and `"[1]"` both give `[1]`. Whoever takes a value parses it.

    Returns:
        None where no object has the field.

    Raises:
        NotJsonError: one of them is not JSON.
    """
    key = json.dumps(name).encode()
    places = np.fromiter((found.start() for found in re.finditer(re.escape(key), texts.raw)), dtype=np.int64)
    by_itself = np.zeros(len(texts), dtype=bool)
    if ESCAPED_LETTER.search(texts.raw) is not None:
        by_itself[:] = [ESCAPED_LETTER.search(raw) is not None for raw in texts.texts(range(len(texts)))]
    rows = np.searchsorted(texts.begins, places, side="right") - 1
    last = np.append(np.diff(rows) > 0, True)[: len(rows)]
    rows, places = rows[last], places[last]
    begins, ends = np.zeros((2, len(texts)), dtype=np.int64)
    values = np.frombuffer(texts.raw, dtype=np.uint8)
    begins[rows], ends[rows], at_end = _lists_at_ends(values, places, places + len(key), texts.ends[rows])
    if at_end.any():  # a list that is followed by other fields up to another list
        first = rows[at_end.argmax()]
        at_end &= _is_json(values[begins[first] : ends[first]].tobytes())
    by_itself[rows[~at_end]] = True
    if not by_itself.any() and not at_end.any():
        return None
    absent = by_itself | (ends == 0)
    nearest = np.maximum.accumulate(np.where(absent, 0, ends))  # where an empty text may stand: they are in order
    lists = slice_texts(values, np.where(absent, nearest, begins), np.where(absent, nearest, ends))
    if not by_itself.any():
        return lists
    more = []
    for row, raw in zip(
        np.flatnonzero(by_itself).tolist(), texts.texts(np.flatnonzero(by_itself).tolist()), strict=True
    ):
        try:
            more.append(_value(raw, key, name))
        except ValueError:
            raise NotJsonError(row) from None
    own = np.arange(len(texts))
    own[by_itself] = len(texts) + np.arange(len(more))
    return take_texts([lists, string_array(more)], own)


def _lists_at_ends(
    values: NDArray[np.uint8], keys: NDArray[np.int64], behind: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return which spans are the lists that objects end with, int64[k] twice, and bool[k], which objects end so.

    In `{"messages": […], "tools": […]}` it is what stands between the colon and the last brace. If that is JSON, it is
    the value: the object is JSON too, so the key is one of its own. It is not where another list follows.

    Args:
        values: u8[B].
        keys, behind: int64[k] each: where the last place of a key begins and ends in each object.
        ends: int64[k]: where each object ends.
    """
    before = values[beside(values, keys, -1)]
    colons = beside(values, behind - 1, 1)
    begins = beside(values, colons, 1)
    last = beside(values, ends - 1, -1)
    found = (before == ord(",")) & (values[colons] == ord(":"))
    found &= (values[begins] == ord("[")) & (values[last] == ord("]")) & (last > begins)
    return np.where(found, begins, 0), np.where(found, last + 1, 0), found


def _value(raw: bytes, key: bytes, name: str) -> str:
    """Return the JSON of a field's value in an object; "" where it has none, or null.

    If what stands from behind the last place of the key up to the object's last brace is a value and further fields of
    an object, the key is one of the object's own: it is JSON too. No more than its end is looked at, and of its first
    field no more than the value.
    """
    at = raw.rfind(key)
    before, after = raw[:at].rstrip(SPACE)[-1:], raw[at + len(key) :].lstrip(SPACE)
    if before in (b",", b"{") and after.startswith(b":") and not ESCAPED_LETTER.search(raw):
        text = after[1:].lstrip(SPACE).decode()
        try:
            value, end = DECODER.raw_decode(text)
            rest = text[end:].lstrip(" \t\r\n").removeprefix(",")
            is_first = raw[:at].rstrip(SPACE) == b"{" and raw.count(key) == 1
            if is_first or type(json.loads("{" + rest)) is dict:
                return text[:end] if type(value) is list else _text_of(value)
        except ValueError:
            pass
    return _text_of(json.loads(raw).get(name))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _text_of(value: Any) -> str:
    """Return a text as it is, "" for null, and anything else as JSON; a ValueError for half a surrogate pair."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    text.encode()
    return text
