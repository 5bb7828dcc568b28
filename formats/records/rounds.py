"""Rounds: a list of objects that each hold a question and its answer, as Firefly's and XTuner's data sets do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.arrow_arrays import numbers_of
from sft_shards.formats.columnar import ConversationColumns, prefix_sums
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.arrow_columns import (
    first_filled_column,
    first_texts,
    have_nothing_beside,
    is_list,
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
    text,
)
from sft_shards.formats.records.json_schemas import JsonSchemas
from sft_shards.formats.records.message_schemas import WEIGHTS, message_schemas
from sft_shards.formats.records.openai import (
    LISTS,
    first_message,
    leading_system,
    messages_of,
    read_weight,
)
from sft_shards.formats.records.role_sequences import RoleSequenceTable, group_turns
from sft_shards.formats.records.template_inputs import read_template_inputs
from sft_shards.formats.records.tools import read_tools

if TYPE_CHECKING:
    import pyarrow as pa

SPELLINGS = {  # names that the keys of a round have in data sets
    "question": ("human", "user", "input", "query", "instruction", "prompt"),
    "answer": ("assistant", "gpt", "bot", "output", "response"),
}
WITH_LOSS = "output_with_loss"
"""XTuner's key: false where the answer is context only."""
BESIDE = frozenset({"system", "loss", WITH_LOSS, *WEIGHTS})
"""Other keys of a round that are read."""


class Rounds:
    """`{"conversation": [{"human": str, "assistant": str}, …]}`, or `[{"system": …, "input": …, "output": …}]`."""

    name = "rounds"
    fields: tuple[str, ...] = ("messages", *SPELLINGS, "tools", SYSTEM[0], *TEMPLATE_INPUTS)

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether there is a list of rounds, of which the first has a question and an answer, both text."""
        first = first_message(record, fields)
        if first is None or not first.keys().isdisjoint(("role", "from")):
            return False
        return all(isinstance(_get(first, name, fields), str) for name in SPELLINGS)

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return a user's and an assistant's turn for each round, with a system turn where its system prompt is new.

        Raises:
            RecordError: `missing_field`, `wrong_type`, `empty_instruction`, `fractional_weight`, or as for any
                conversation.
        """
        turns = leading_system(record, fields)
        system = turns[0].content if turns else ""
        for number, entry in enumerate(messages_of(record, fields)):
            own = optional_text(entry.get("system"), "system")
            if own and own != system:
                system = own
                turns.append(Turn(role="system", content=own))
            question = text(_get(entry, "question", fields), "question")
            if not question.strip():
                remedy = "a text without a question is read with --format text"
                raise RecordError("empty_instruction", f"the question of round {number} is blank; {remedy}")
            weight = 0 if entry.get(WITH_LOSS) is False else read_weight(entry)
            turns.append(Turn(role="user", content=question))
            turns.append(Turn(role="assistant", content=text(_get(entry, "answer", fields), "answer"), weight=weight))
        beside = read_template_inputs(record, fields)
        return Conversation(turns=tuple(turns), tools=read_tools(record, fields), **beside)

    def json_schemas(self, record: object, fields: FieldMap) -> JsonSchemas | None:
        """See `ColumnarFormat.json_schemas`."""
        lists, keys = _column_names(fields)
        first = first_message(record, fields)
        if not lists or first is None:
            return None
        found = [next((key for key in names if first.get(key) is not None), None) for names in keys.values()]
        if found[0] is None or found[1] is None:
            return None
        others = frozenset(key for names in keys.values() for key in names) | BESIDE
        return message_schemas(record, fields, lists=lists, keys=(found[0], found[1]), special=others)

    def read_columns(self, batch: pa.RecordBatch, fields: FieldMap) -> ConversationColumns | None:
        """See `ColumnarFormat.read_columns`. Records in which nothing stands beside questions and answers.

        Two records, of two rounds and of one:

            lengths   [2, 1]
            texts     [q0, q1, q2] and [a0, a1, a2]
            indices   [0, 3, 1, 4, 2, 5]               q0 a0 q1 a1 q2 a2
            codes     [0, 1, 0, 1, 0, 1]               user and assistant take turns
        """
        import pyarrow as pa

        lists, keys = _column_names(fields)
        column = first_filled_column(batch, lists)
        if column is None or not is_list(column.type) or not pa.types.is_struct(column.type.value_type):
            return None
        if not column.type.value_type.num_fields:
            return None
        flat = column.flatten()
        rounds = pa.RecordBatch.from_arrays(flat.flatten(), names=[field.name for field in flat.type])
        questions, answers = (first_texts(rounds, names) for names in keys.values())
        known = not_null(questions[0]) & not_null(answers[0]) & questions[1] & answers[1]
        known &= have_nothing_beside(rounds, tuple(BESIDE))
        lengths = numbers_of(column.value_lengths(), null=0).astype(np.int64)
        offsets, unknown_before = prefix_sums(lengths), prefix_sums(~known)
        prompts, certain = first_texts(batch, SYSTEM)
        rows = have_nothing_beside(batch, fields.beside()) & certain & ~not_empty(prompts) & (lengths > 0)
        rows &= unknown_before[offsets[1:]] == unknown_before[offsets[:-1]]
        count = len(known)
        indices = np.stack([np.arange(count), count + np.arange(count)], axis=1).reshape(-1)
        codes = np.tile(np.asarray([0, 1], dtype=np.uint8), count)
        texts = take_texts([questions[0], answers[0]], indices)
        return group_turns(rows, 2 * lengths, codes, RoleSequenceTable(["user", "assistant"]), texts)


def _column_names(fields: FieldMap) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the columns that may hold the rounds, and the keys of question and answer; none where one is nested."""
    keys = {name: fields.column(name, spellings) for name, spellings in SPELLINGS.items()}
    known = fields.columns.keys() <= {"messages", *SPELLINGS, *TEMPLATE_INPUTS} and all(keys.values())
    return (fields.column("messages", LISTS[1:]) if known else ()), keys


def _get(entry: Mapping[str, Any], name: str, fields: FieldMap) -> Any:
    found = fields.look_up(entry, name, SPELLINGS[name])
    return MISSING if found is None else found
