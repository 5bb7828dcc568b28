"""JSON in which values of some keys are of another type: Arrow's reader knows one type for each field.

The bytes are changed where the values stand, found by their keys; what is no JSON stays none.
"""

from __future__ import annotations

import json
import re
import sys

import numpy as np

from sft_shards.formats.arrow_arrays import string_array
from sft_shards.formats.records.arrow_columns import slice_texts, take_texts
from sft_shards.formats.records.json_schemas import OBJECT_MARK
from sft_shards.formats.records.tool_json import json_objects

COLON = rb"[ \t\r\n]*:[ \t\r\n]*"
ALL = b"*+" if sys.version_info >= (3, 11) else b"*"
"""As many as there are. Python 3.10 tries fewer as well, in vain: what comes next never begins as these do."""
STRING = rb'"[^"\\]' + ALL + rb'(?:\\.[^"\\]' + ALL + rb")" + ALL + b'"'
OBJECT = rb"\{[^{}\"]" + ALL + rb"(?:" + STRING + rb"[^{}\"]" + ALL + rb")" + ALL + rb"\}"
for _ in range(4):
    OBJECT = rb"\{[^{}\"]" + ALL + rb"(?:(?:" + STRING + rb"|" + OBJECT + rb")[^{}\"]" + ALL + rb")" + ALL + rb"\}"
"""Matches an object of JSON, in which objects are nested up to five deep."""
BRACES = re.compile(STRING + rb"|[{}]", re.DOTALL)
PART = rb'[{"type": "text", "text": ', rb"}]"
"""What stands around a text that becomes a list of one part."""


def with_objects_as_texts(raw: bytes | memoryview, key: str) -> bytes | memoryview:
    r"""Return JSON in which objects that are a value of `key` are texts: `OBJECT_MARK` and the object in JSON.

    `{"f": {"a":1}}` becomes `{"f": "…{\"a\": 1}"}`, as `layouts.json_text` writes it. What is no JSON stays as it is.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    spans: list[tuple[int, int]] = []
    for found in re.finditer(_key(key) + COLON + rb"(" + OBJECT + rb"|\{)", raw, re.DOTALL):
        begin, end = found.span(1)
        if spans and begin < spans[-1][1]:
            continue  # within an object that is deeper than the pattern knows
        if end - begin == 1:
            end = _object_end(raw, begin)
        if end:
            spans.append((begin, end))
    if not spans:
        return raw
    values, places = np.frombuffer(raw, dtype=np.uint8), np.asarray(spans, dtype=np.int64)
    objects = slice_texts(values, places[:, 0], places[:, 1])
    try:
        objects.validate(full=True)
    except pa.ArrowInvalid:
        return raw  # it is not UTF-8
    known, texts = json_objects(objects)
    begins, ends = places[known].T
    escaped = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    between = slice_texts(values, np.append(0, ends), np.append(begins, len(values)))
    around = string_array([json.dumps(OBJECT_MARK)[:-1], '"'])
    count = len(begins)  # of pieces there are 2 around texts, then count + 1 between them, then the texts
    order = np.arange(count)[:, None] * [1, 0, 1, 0] + [2, 0, 3 + count, 1]
    pieces = take_texts([around, between, escaped], np.append(order.reshape(-1), 2 + count))
    return memoryview(pieces.buffers()[2])


def _key(key: str) -> bytes:
    """Return what matches a key in JSON and not the end of another key. It begins with text, which is fast to find."""
    written = re.escape(json.dumps(key).encode())
    return written + rb"(?<!\\" + written + rb")"


def _object_end(raw: bytes | memoryview, begin: int) -> int:
    """Return where an object ends that begins with a brace; 0 where it does not."""
    depth = 0
    for found in BRACES.finditer(raw, begin):
        depth += {b"{": 1, b"}": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    return 0


def with_texts_as_parts(raw: bytes | memoryview, key: str) -> bytes:
    """Return JSON in which texts that are a value of `key` are lists of one part.

    `{"content": "a"}` becomes `{"content": [{"type": "text", "text": "a"}]}`.
    """
    pieces: list[bytes | memoryview] = []
    place = 0
    for found in re.finditer(_key(key) + COLON + rb"(" + STRING + rb")", raw, re.DOTALL):
        pieces += raw[place : found.start(1)], PART[0], found[1], PART[1]
        place = found.end(1)
    return b"".join([*pieces, raw[place:]])
