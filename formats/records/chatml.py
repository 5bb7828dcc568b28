"""ChatML as text: `<|im_start|>role`, a newline, the content, `<|im_end|>`, over and over, in one text column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from formats.conversation import Conversation, Plain, Shape, Turn
from formats.errors import RecordError
from formats.records.fields import FieldMap, text
from formats.records.openai import ROLE_NAMES
from formats.records.plain import PLAIN_ROLES, plain_of
from formats.records.typed import Reader, Typed, reader_like

START, END = "<|im_start|>", "<|im_end|>"
TURN = re.compile(r"<\|im_start\|>([^\n<]*)\r?\n(.*?)<\|im_end\|>\s*", re.DOTALL)


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

    def plain(self, records: Sequence[Any], fields: FieldMap) -> Plain:
        """As `PlainFormat.plain`."""
        return plain_of(records, fields, _together)

    def reader(self, record: object) -> Reader | None:
        """As `PlainFormat.reader`."""
        return reader_like(record, [("text", "text", str)]) if type(record) is dict and "text" in record else None

    @staticmethod
    def _text(record: object, fields: FieldMap) -> Any:
        return fields.look_up(record, "text") if isinstance(record, Mapping) else record


def _together(records: Sequence[Any], fields: FieldMap) -> tuple[list[Shape], list[Any]] | None:
    shapes: list[Shape] = []
    texts: list[str] = []
    if fields.columns:
        return None
    for record in records:
        if isinstance(record, Typed):
            value = record.text  # type: ignore[attr-defined]
        else:
            value = record if type(record) is str else record.get("text") if type(record) is dict else None
        if type(value) is not str or not value.startswith(START):
            return None
        shape: list[str] = []
        for piece in value.split(START)[1:]:
            head, newline, rest = piece.partition("\n")
            content, end, after = rest.partition(END)
            role = fields.roles.get(head, head)
            if role not in PLAIN_ROLES or not newline or not end or not (after == "\n" or not after.strip()):
                return None
            shape.append(role)
            texts.append(content)
        if "assistant" not in shape:
            return None
        shapes.append(tuple(shape))
    return shapes, texts
