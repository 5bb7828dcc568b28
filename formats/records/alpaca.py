"""Alpaca records: an instruction, an input and an output; a system prompt and earlier rounds if there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.columnar import INPUT, ConversationColumns, Layout
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.arrow_columns import (
    first_texts,
    have_nothing_beside,
    not_empty,
    not_null,
    take_texts,
)
from sft_shards.formats.records.fields import (
    MISSING,
    SYSTEM,
    TEMPLATE_INPUTS,
    FieldMap,
    optional_text,
    refuse_media,
    text,
)
from sft_shards.formats.records.json_schemas import TEXT, FieldKind, JsonSchemas, schemas_for
from sft_shards.formats.records.template_inputs import read_template_inputs

if TYPE_CHECKING:
    import pyarrow as pa

SPELLINGS = {  # other names that the columns of each field have in data sets
    "instruction": ("prompt", "question", "query"),
    "input": ("context",),
    "output": ("response", "answer", "completion"),
    "system": SYSTEM[1:],
    "history": (),
}


class Alpaca:
    """`{"instruction": str, "input": str, "output": str, "system": str, "history": [[user, assistant], …]}`.

    An entry of the history may also be an object such as `{"query": str, "response": str}`.
    """

    name = "alpaca"
    fields: tuple[str, ...] = (*SPELLINGS, *TEMPLATE_INPUTS)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether the record has an instruction and an output, both text."""
        if not isinstance(record, Mapping):
            return False
        needed = (_get(record, name, fields) for name in ("instruction", "output"))
        return all(isinstance(value, str) for value in needed)

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return one conversation of one or more rounds.

        Raises:
            RecordError: `wrong_type`, `missing_field`, `not_text`, `empty_instruction`, or as for any conversation.
        """
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
        return Conversation(turns=tuple(turns), **read_template_inputs(record, fields))

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        if type(record) is not dict:
            return None
        wanted: dict[str, FieldKind] = {}
        must_be_empty: list[str] = []
        for name, columns in _text_columns(fields).items():
            found = [column for column in columns if record.get(column) is not None]
            if not found and (name != "input" or not columns):
                return None
            chosen = found[0] if found else columns[0]
            wanted[chosen] = TEXT
            must_be_empty += [column for column in columns if column != chosen]
        return schemas_for(record, wanted, wanted, must_be_empty, fields)

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """See `ColumnarFormat.read_columns`. Records of one round only.

        Each record has up to four texts: system, instruction, input, output. Which of them it has gives its role
        sequence. For three records, of which the second has an input and the third a system prompt:

            has system        [0, 0, 1]
            has input         [0, 1, 0]
            layout_ids      [0, 1, 2]     2 * system + input, an index into `ROLE_SEQUENCES`
            text indices      [3, 9 | 4, 7, 10 | 2, 5, 11]     text k of record i has index i + 3 * k
        """
        columns = _text_columns(fields)
        if not all(columns.values()):
            return None
        names = [SYSTEM, columns["instruction"], columns["input"], columns["output"]]
        texts, certain = zip(*(first_texts(batch, each) for each in names), strict=True)
        has_system, has_input = not_empty(texts[0]), not_empty(texts[2])
        bare = have_nothing_beside(batch, fields.beside())
        rows = np.logical_and.reduce([bare, not_null(texts[1]), not_null(texts[3]), *certain])
        present = np.stack([has_system, rows, has_input, rows], axis=1) & rows[:, None]
        indices = np.arange(batch.num_rows)[:, None] + batch.num_rows * np.arange(len(texts))
        return ConversationColumns(
            rows=np.flatnonzero(rows),
            layouts=ROLE_SEQUENCES,
            layout_ids=(2 * has_system + has_input)[rows],
            texts=take_texts(texts, indices[present]),
        )


ONE_ROUND: Layout = ("user", "assistant")
WITH_INPUT: Layout = ("user", INPUT, "assistant")
ROLE_SEQUENCES = (ONE_ROUND, WITH_INPUT, ("system", *ONE_ROUND), ("system", *WITH_INPUT))


def _text_columns(fields: FieldMap) -> dict[str, tuple[str, ...]]:
    """Return the columns that may hold each text; none where the user named a nested column, or other fields."""
    texts = ("instruction", "input", "output")
    if not fields.columns.keys() <= {*texts, *TEMPLATE_INPUTS}:
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
        if isinstance(pair, Mapping):
            pair = [_get(pair, name, FieldMap()) for name in ("instruction", "output")]
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RecordError("wrong_type", f"history entry {number} is not a [user, assistant] pair")
        pairs.append((text(pair[0], "history"), text(pair[1], "history")))
    return pairs
