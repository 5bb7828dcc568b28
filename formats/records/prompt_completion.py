"""TRL's conversational prompts with completions: two lists of messages, the second of which carries loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.records.fields import MISSING, SYSTEM, TEMPLATE_INPUTS, FieldMap
from sft_shards.formats.records.openai import OpenAI

PARTS = ("prompt", "completion")


class PromptCompletion:
    """`{"prompt": [{"role": str, "content": str}, …], "completion": [{"role": "assistant", "content": str}]}`.

    The prompt's assistant turns get a weight of 0, so that `--train-on weight` trains what TRL trains.
    """

    name = "prompt-completion"
    fields: tuple[str, ...] = (*PARTS, "tools", SYSTEM[0], "role", "content", *TEMPLATE_INPUTS)

    def __init__(self) -> None:
        self._openai = OpenAI()

    def matches(self, record: object, fields: FieldMap) -> bool:
        """Return whether the record has two lists of messages."""
        if not isinstance(record, Mapping):
            return False
        found = [fields.look_up(record, name) for name in PARTS]
        return all(isinstance(one, list) and self._openai.matches(one, fields) for one in found)

    def read(self, record: object, fields: FieldMap) -> Conversation:
        """Return the turns of both lists, with the tools on offer.

        Raises:
            RecordError: `missing_field`, `wrong_type`, `no_assistant_turn` (the completion has none), or as for
                OpenAI's messages.
        """
        if not isinstance(record, Mapping):
            raise RecordError("wrong_type", f"a prompt with its completion is an object, not {type(record).__name__}")
        prompt, completion = (_messages(record, name, fields) for name in PARTS)
        found = self._openai.read({**record, "messages": [*prompt, *completion]}, _without_messages(fields))
        given = len(found.turns) - len(completion)
        if not any(turn.role == "assistant" for turn in found.turns[given:]):
            raise RecordError("no_assistant_turn", "the completion has no message of the assistant")
        return replace(found, turns=tuple(map(_as_context, found.turns[:given])) + found.turns[given:])


def _as_context(turn: Turn) -> Turn:
    return replace(turn, weight=0) if turn.role == "assistant" else turn


def _messages(record: Mapping[str, Any], name: str, fields: FieldMap) -> list[Any]:
    found = fields.look_up(record, name)
    if found is MISSING:
        raise RecordError("missing_field", f"no {name}; name its column with --field {name}=COLUMN")
    if not isinstance(found, list):
        raise RecordError("wrong_type", f"{name} is {type(found).__name__}, not a list of messages")
    return found


def _without_messages(fields: FieldMap) -> FieldMap:
    columns = {name: column for name, column in fields.columns.items() if name != "messages"}
    return replace(fields, columns=columns)
