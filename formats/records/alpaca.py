"""Alpaca: one instruction with an optional input, one output; optionally a system prompt and earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.columnar import INPUT, RoleSequence, TextOnlyConversations
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.arrow_columns import (
    are_bare,
    filled,
    taken,
    texts_in,
    valid,
)
from sft_shards.formats.records.fields import MISSING, SYSTEM, FieldMap, optional_text, refuse_media, text
from sft_shards.formats.records.json_schemas import TEXT, FieldKind, JsonSchemas, schemas_for

if TYPE_CHECKING:
    import pyarrow as pa

SPELLINGS = {
    "instruction": ("prompt", "question", "query"),
    "input": ("context",),
    "output": ("response", "answer", "completion"),
    "system": SYSTEM[1:],
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

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        if type(record) is not dict:
            return None
        strict: dict[str, FieldKind] = {}
        must_be_empty: list[str] = []
        for name, columns in _plain_columns(fields).items():
            there = [column for column in columns if record.get(column) is not None]
            if not there and (name != "input" or not columns):
                return None
            chosen = there[0] if there else columns[0]
            strict[chosen] = TEXT
            must_be_empty += [column for column in columns if column != chosen]
        return schemas_for(record, strict, strict, must_be_empty)

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> TextOnlyConversations | None:
        """See `ColumnarFormat.read_columns`. Records of one round only."""
        columns = _plain_columns(fields)
        if not all(columns.values()):
            return None
        names = [SYSTEM, columns["instruction"], columns["input"], columns["output"]]
        texts, certain = zip(*(texts_in(batch, each) for each in names), strict=True)
        prompted, with_context = filled(texts[0]), filled(texts[2])
        rows = np.logical_and.reduce([are_bare(batch), valid(texts[1]), valid(texts[3]), *certain])
        there = np.stack([prompted, rows, with_context, rows], axis=1) & rows[:, None]
        places = np.arange(batch.num_rows)[:, None] + batch.num_rows * np.arange(len(texts))
        return TextOnlyConversations(
            rows=np.flatnonzero(rows),
            role_sequences=ROLE_SEQUENCES,
            sequence_ids=(2 * prompted + with_context)[rows],
            texts=taken(texts, places[there]),
        )


SHORT: RoleSequence = ("user", "assistant")
LONG: RoleSequence = ("user", INPUT, "assistant")
ROLE_SEQUENCES = (SHORT, LONG, ("system", *SHORT), ("system", *LONG))


def _plain_columns(fields: FieldMap) -> dict[str, tuple[str, ...]]:
    """The columns that may hold each of the texts; none of some where a column is nested, or others are named."""
    texts = ("instruction", "input", "output")
    if not fields.columns.keys() <= set(texts):
        return dict.fromkeys(texts, ())
    return {name: fields.column(name, SPELLINGS[name]) for name in texts}


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
