"""Alpaca: one instruction with an optional input, one output; optionally a system prompt and earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from formats.conversation import INPUT, Conversation, Shape, Turn
from formats.errors import RecordError
from formats.records.fields import MISSING, FieldMap, is_bare, optional_text, refuse_media, text

SPELLINGS = {
    "instruction": ("prompt", "question", "query"),
    "input": ("context",),
    "output": ("response", "answer", "completion"),
    "system": ("system_prompt",),
    "history": (),
}


class Alpaca:
    """`{"instruction": str, "input": str, "output": str, "system": str, "history": [[user, assistant], …]}`."""

    name = "alpaca"
    fields: tuple[str, ...] = tuple(SPELLINGS)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Whether the record has an instruction and an output, both text."""
        if not isinstance(record, Mapping):
            return False
        needed = (_get(record, name, fields) for name in ("instruction", "output"))
        return all(isinstance(value, str) for value in needed)

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """One conversation of one or more rounds."""
        if not isinstance(record, Mapping):
            raise RecordError("wrong_type", f"an Alpaca record is an object, this is {type(record).__name__}")
        refuse_media(record)
        turns: list[Turn] = []
        if system := optional_text(_get(record, "system", fields), "system"):
            turns.append(Turn(role="system", content=system))
        for pair in _history(_get(record, "history", fields)):
            turns += [Turn(role="user", content=pair[0]), Turn(role="assistant", content=pair[1])]
        instruction = text(_get(record, "instruction", fields), "instruction")
        context = optional_text(_get(record, "input", fields), "input")
        output = text(_get(record, "output", fields), "output")
        if not instruction.strip():
            if not context.strip():
                raise RecordError("empty_instruction", "neither the instruction nor the input has text")
            instruction, context = context, ""
        turns.append(Turn(role="user", content=instruction, context=context or None))
        turns.append(Turn(role="assistant", content=output))
        return Conversation(turns=tuple(turns))

    def plain(self, record: Any, fields: FieldMap) -> tuple[Shape, list[str]] | None:
        """As `PlainFormat.plain`; a record of one round without a system prompt."""
        if type(record) is not dict or not is_bare(record, fields):
            return None
        question, context, answer = record.get("instruction"), record.get("input"), record.get("output")
        if question is None or answer is None or ("input" not in record and "context" in record):
            return None  # other spellings, say
        if context is None or context == "":
            return ("user", "assistant"), [question, answer]
        return ("user", INPUT, "assistant"), [question, context, answer]


def _get(record: Mapping[str, Any], name: str, fields: FieldMap) -> Any:
    return fields.look_up(record, name, SPELLINGS[name])


def _history(value: object) -> list[tuple[str, str]]:
    if value is MISSING or value is None:
        return []
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"history is {type(value).__name__}, not a list of [user, assistant] pairs")
    pairs = []
    for number, pair in enumerate(value):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RecordError("wrong_type", f"history entry {number} is not a [user, assistant] pair")
        pairs.append((text(pair[0], "history"), text(pair[1], "history")))
    return pairs
