"""Conversations: what every record format is read into, and every template renders.

Part of the plugin surface: other packages may import what `__all__` names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sft_shards.formats.columnar import INPUT, Layout, text_only_digest
from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import check_nesting

__all__ = ["PLAIN_TEXT", "ROLES", "Conversation", "Turn"]

ROLES = ("system", "developer", "user", "assistant", "tool")
PLAIN_TEXT = "plain_text"
"""The role of the only turn of a record that is a text and no conversation (see `templates.plain_text`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    """One of `ROLES`, or `PLAIN_TEXT`."""
    content: str | None = None
    """The text as it stood in the record, untouched; None only where an assistant turn is all tool calls."""
    context: str | None = None
    """Alpaca's `input`: a second text of a user turn. Templates that do not know it get it below the content."""
    reasoning: str | None = None
    """Reasoning that the record keeps apart from the content (`reasoning_content`)."""
    reasoning_alias: bool = False
    """Whether the record has the reasoning under the key `reasoning`, which templates are then given, too."""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """OpenAI's form: `{"type": "function", "function": {"name": str, "arguments": dict}}`."""
    name: str | None = None
    """Who speaks, or which tool answered."""
    tool_call_id: str | None = None
    """The call that a tool turn answers."""
    weight: int = 1
    """0 where the record says that this turn is context only (OpenAI's `weight`), else 1."""

    def message(self) -> dict[str, Any]:
        """Return the turn as chat templates expect it: a dict without the keys that are not set.

        Transformers drops keys whose value is null before it renders; templates would write the word None otherwise.
        It passes reasoning on as `reasoning_content` and `thinking` whatever the record's key, and keeps that key.
        """
        out: dict[str, Any] = {"role": self.role} | ({} if self.content is None else {"content": self.content})
        if self.context is not None:
            text = (self.content or "") + "\n\n" + self.context
            out |= {"content": text, "instruction": self.content, "input": self.context}
        if self.reasoning is not None:
            out |= {"reasoning_content": self.reasoning, "thinking": self.reasoning}  # gpt-oss reads the second
            out |= {"reasoning": self.reasoning} if self.reasoning_alias else {}
        if self.tool_calls:
            out["tool_calls"] = list(self.tool_calls)
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out

    def is_silent(self) -> bool:
        """Return whether the turn has neither text, nor reasoning, nor a tool call."""
        return not self.tool_calls and not (self.content or "").strip() and not (self.reasoning or "").strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Turns in order, with the tools on offer; or one plain text.

    Raises:
        RecordError: `unknown_role`, `no_assistant_turn`, `empty_assistant_turn` (an assistant turn that says
            nothing would teach the model to say nothing), `empty` (a plain text is blank), `nested_too_deeply`
            or `lone_surrogate`.
    """

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    documents: tuple[dict[str, Any], ...] = ()
    """Texts that the answers draw on, each `{"title": str, "text": str}` or what else its template knows."""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template is given beside, by name, such as `enable_thinking`; see `template_arguments`."""

    def __post_init__(self) -> None:
        if self.is_plain_text:
            if not (self.turns[0].content or "").strip():
                raise RecordError("empty", "the text is blank")
        else:
            self._check_turns()
        check_nesting([turn.tool_calls for turn in self.turns if turn.tool_calls])
        check_nesting(self.tools)
        check_nesting(self.documents)
        try:
            for text in self._words():
                if not text.isascii():
                    text.encode("utf-8")
        except UnicodeEncodeError:
            raise RecordError(
                "lone_surrogate", "the text holds half of a surrogate pair, which is no character"
            ) from None

    @property
    def is_plain_text(self) -> bool:
        """Whether this is a text and no conversation: no template renders it, and every token carries loss."""
        return len(self.turns) == 1 and self.turns[0].role == PLAIN_TEXT

    def _check_turns(self) -> None:
        answers = 0
        for number, turn in enumerate(self.turns):
            if turn.role not in ROLES:
                raise RecordError("unknown_role", f"turn {number} is by {turn.role!r}, none of {', '.join(ROLES)}")
            if turn.role == "assistant":
                answers += 1
                if turn.is_silent():
                    detail = f"turn {number}, an assistant's, has no text and no tool call"
                    raise RecordError("empty_assistant_turn", detail)
        if not answers:
            roles = ", ".join(turn.role for turn in self.turns) or "none"
            raise RecordError("no_assistant_turn", f"roles: {roles}")

    def _words(self) -> Iterator[str]:
        """Yield every text, with values of several texts as JSON."""
        for turn in self.turns:
            for text in (turn.content, turn.context, turn.reasoning, turn.name, turn.tool_call_id):
                if text:
                    yield text
            if turn.tool_calls:
                yield as_json(turn.tool_calls)
        for more in (self.tools, self.documents, self.template_arguments):
            if more:
                yield as_json(more)

    def messages(self) -> list[dict[str, Any]]:
        """Return the turns as chat templates expect them."""
        return [turn.message() for turn in self.turns]

    def text_only(self) -> tuple[Layout, list[str]] | None:
        """Return the role sequence and the texts, or None where the conversation holds anything else."""
        return None if self.documents or self.template_arguments else self._roles_and_texts()

    def _roles_and_texts(self) -> tuple[Layout, list[str]] | None:
        roles: list[str] = []
        texts: list[str] = []
        for turn in self.turns:
            more = (
                turn.reasoning is not None or turn.tool_calls or turn.name is not None or turn.tool_call_id is not None
            )
            if turn.content is None or more or not turn.weight:
                return None
            roles.append(turn.role)
            texts.append(turn.content)
            if turn.context is not None:
                roles.append(INPUT)
                texts.append(turn.context)
        return None if self.tools else (tuple(roles), texts)

    @classmethod
    def from_text_only(cls, roles: Layout, texts: Sequence[str]) -> Conversation:
        """Build the conversation that `text_only` takes apart.

        Raises:
            RecordError: as for any conversation.
        """
        turns: list[Turn] = []
        for role, text in zip(roles, texts, strict=True):
            if role == INPUT:
                turns[-1] = Turn(role=turns[-1].role, content=turns[-1].content, context=text)
            else:
                turns.append(Turn(role=role, content=text))
        return cls(turns=tuple(turns))

    def digest(self) -> bytes:
        """Return 16 bytes that are equal exactly when turns and tools of two conversations are.

        Splits and duplicates go by them. Documents and template arguments count for duplicates where they change the
        rendered text, which the render stage sees.
        """
        text_only = self._roles_and_texts()
        if text_only is not None:
            return text_only_digest(*text_only)
        turns = [{"content": None, **turn.message(), "weight": turn.weight} for turn in self.turns]
        for turn in turns:
            turn.pop("reasoning", None)  # the same text as `reasoning_content`
        return hashlib.blake2b(as_json([turns, list(self.tools)]).encode("utf-8"), digest_size=16).digest()


def as_json(value: Any) -> str:
    """Return a JSON-like value as a text that is the same for equal ones."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
