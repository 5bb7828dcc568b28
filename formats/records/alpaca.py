"""Alpaca: one instruction with an optional input, one output; optionally a system prompt and earlier rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

from formats.conversation import INPUT, Conversation, Plain, Shape, Turn
from formats.errors import RecordError
from formats.records.fields import MISSING, FieldMap, are_bare, optional_text, refuse_media, text
from formats.records.plain import plain_of
from formats.records.typed import Reader, Typed, reader_like

SPELLINGS = {
    "instruction": ("prompt", "question", "query"),
    "input": ("context",),
    "output": ("response", "answer", "completion"),
    "system": ("system_prompt",),
    "history": (),
}


PLAIN_FIELDS = (("instruction", "instruction", str), ("input", "input", str | None), ("output", "output", str))


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

    def plain(self, records: Sequence[Any], fields: FieldMap) -> Plain:
        """As `PlainFormat.plain`; a record of one round without a system prompt."""
        return plain_of(records, fields, _together)

    def reader(self, record: object) -> Reader | None:
        """As `PlainFormat.reader`."""
        if type(record) is not dict or not {"instruction", "output"} <= record.keys() or "context" in record:
            return None
        return reader_like(record, PLAIN_FIELDS)


SHORT: Shape = ("user", "assistant")
LONG: Shape = ("user", INPUT, "assistant")


def _together(records: Sequence[Any], fields: FieldMap) -> tuple[list[Shape], list[Any]] | None:
    if not records or fields.columns:
        return None
    if isinstance(records[0], Typed):
        get: Callable[[str], Callable[[Any], Any]] = attrgetter
        contexts = list(map(attrgetter("input"), records))
    else:
        if set(map(type, records)) != {dict}:
            return None
        there = set[str]().union(*records)
        if not are_bare(records, there):
            return None
        get, contexts = itemgetter, [record.get("input") for record in records]
        if None in contexts and "context" in there:
            return None
    try:
        questions, answers = list(map(get("instruction"), records)), list(map(get("output"), records))
    except KeyError:  # other spellings, say
        return None
    if not any(contexts):
        return [SHORT] * len(records), list(chain.from_iterable(zip(questions, answers, strict=True)))
    texts: list[Any] = []
    for question, context, answer in zip(questions, contexts, answers, strict=True):
        texts += (question, context, answer) if context else (question, answer)
    return [LONG if context else SHORT for context in contexts], texts


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
