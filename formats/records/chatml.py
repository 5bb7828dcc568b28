"""ChatML as text: `<|im_start|>role`, a newline, the content, `<|im_end|>`, over and over, in one text column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import TextOnlyConversations, utf8_buffers
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.arrow_columns import (
    cut_out,
    texts_in,
    valid,
)
from sft_shards.formats.records.fields import FieldMap, text
from sft_shards.formats.records.json_schemas import TEXT, FieldKind, JsonSchemas, schema, schemas_for
from sft_shards.formats.records.openai import ROLE_NAMES
from sft_shards.formats.records.role_sequences import TEXT_ONLY_ROLES, encode_roles, group_turns

if TYPE_CHECKING:
    import pyarrow as pa

START, END = "<|im_start|>", "<|im_end|>"
TURN = re.compile(r"<\|im_start\|>([^\n<]*)\r?\n(.*?)<\|im_end\|>\s*", re.DOTALL)
KNOWN = {role: role for role in TEXT_ONLY_ROLES}


class ChatML:
    """`{"text": "<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\nHi!<|im_end|>\\n"}`, or the bare text."""

    name = "chatml"
    fields: tuple[str, ...] = ("text",)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Whether the text begins with `<|im_start|>` (after white space or another control token such as BOS)."""
        value = self._text(record, fields)
        return isinstance(value, str) and re.match(r"\s*(<[^<>\s]*>)?\s*<\|im_start\|>", value) is not None

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """The turns, contents as they stand between the role's newline and `<|im_end|>`.

        Raises:
            RecordError: `malformed_chatml` where anything stands outside of a turn, such as a turn that was cut
                off before its `<|im_end|>`.
        """
        value = text(self._text(record, fields), "text")
        begin = value.find(START)
        if begin < 0:
            raise RecordError("malformed_chatml", f"no {START} in the text")
        turns = []
        while begin < len(value):
            found = TURN.match(value, begin)
            if found is None or START in found[2]:
                rest = value[begin : begin + 40]
                raise RecordError("malformed_chatml", f"character {begin}: {rest!r} is not a whole turn")
            turns.append(Turn(role=fields.role(found[1].strip(), ROLE_NAMES), content=found[2]))
            begin = found.end()
        return Conversation(turns=tuple(turns))

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        names = fields.column("text")
        if not names:
            return None
        wanted: dict[str, FieldKind] = {names[0]: TEXT}
        if isinstance(record, str):
            return JsonSchemas(strict=schema(tuple(wanted.items())), tolerant=None, value_field=names[0])
        return schemas_for(record, wanted, wanted, ()) if type(record) is dict and names[0] in record else None

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> TextOnlyConversations | None:
        """See `ColumnarFormat.read_columns`."""
        texts, certain = texts_in(batch, fields.column("text"))
        return _plain(texts, certain & valid(texts), fields)

    @staticmethod
    def _text(record: object, fields: FieldMap) -> Any:
        return fields.look_up(record, "text") if isinstance(record, Mapping) else record


def _plain(texts: pa.StringArray, rows: NDArray[np.bool_], fields: FieldMap) -> TextOnlyConversations:
    """What is plain among texts: those that are turns to the letter, with nothing but white space in between."""
    import pyarrow as pa

    values, bounds = utf8_buffers(texts)
    raw = values.tobytes()
    starts, ends = _places(values, bounds, START.encode()), _places(values, bounds, END.encode())
    begun, ended = (np.searchsorted(found, bounds) for found in (starts, ends))
    turns = np.diff(begun)
    rows = rows & (turns > 0) & (turns == np.diff(ended))
    rows[rows] = starts[begun[:-1][rows]] == bounds[:-1][rows]
    owner = np.repeat(np.arange(len(texts)), turns)
    starts, ends = starts[rows[owner]], ends[rows[np.repeat(np.arange(len(texts)), np.diff(ended))]]
    owner, turns = owner[rows[owner]], np.where(rows, turns, 0)
    heads = starts + len(START)
    lines = np.flatnonzero(values == ord("\n"))
    lines = np.append(lines, len(values))[np.searchsorted(lines, heads)]
    after = ends + len(END)
    nexts = np.append(starts[1:], len(values))
    last = np.append(owner[1:] != owner[:-1], True) if len(owner) else np.zeros(0, dtype=bool)
    nexts[last] = bounds[1:][owner[last]]
    sound = (lines < ends) & (after <= nexts)
    gap = sound & (nexts - after > 0)
    gap[gap] = (nexts[gap] - after[gap] > 1) | (values[after[gap]] != ord("\n"))
    for at in np.flatnonzero(gap).tolist():
        sound[at] = raw[after[at] : nexts[at]].decode().isspace()
    rows[owner[~sound]] = False
    owned = rows[owner]
    names = [raw[begin:end] for begin, end in zip(heads[owned].tolist(), lines[owned].tolist(), strict=True)]
    codes, table = encode_roles(pa.array(names, pa.string()), fields, KNOWN)
    contents = cut_out(values, lines[owned] + 1, ends[owned])
    return group_turns(rows, np.where(rows, turns, 0), codes, table, contents)


def _places(values: NDArray[np.uint8], bounds: NDArray[np.int32], word: bytes) -> NDArray[np.int64]:
    """int64: where a word begins in texts, u8 values with their bounds; it begins with a letter that is rare."""
    found = np.flatnonzero(values[: max(len(values) - len(word) + 1, 0)] == word[0])
    for number in range(1, len(word)):
        found = found[values[found + number] == word[number]]
    owner = np.searchsorted(bounds, found, side="right") - 1
    inside: NDArray[np.int64] = found[found + len(word) <= bounds[owner + 1]]
    return inside
