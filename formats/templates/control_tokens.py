"""Control tokens: which of a tokenizer's tokens structure a conversation, so that nobody may type them.

Those are its special tokens, the tokens that a turn ends with, and what else the template writes around messages:
DeepSeek's `<｜User｜>` is an added token that is not special. Tags of reasoning and calls (`<think>`, `<tool_call>`)
are apart: people write them into an assistant's text and mean them, and in everybody else's text they are control
tokens like the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MARKUP = re.compile(r"(?=.*\w)[^\w\s].+[^\w\s]", re.DOTALL)
"""Brackets of any kind around a name. Added tokens of another form (runs of spaces, words) are ordinary text."""
TAG = re.compile(r"[<\[◁]/?[a-z][\w.:-]*[>\]▷]")
NAMED_TAG = re.compile(r"</?(?:\w+:)?(?:think|thought|reason|tool|function|arg|param)\w*>")
"""The tags of reasoning and of tool calls, whatever the template; `</s>` is none."""


@dataclass(frozen=True, kw_only=True)
class ControlTokens:
    """The tokens that stay text when somebody types them."""

    everywhere: tuple[str, ...] = ()
    """In every text, key and name, sorted."""
    tags: tuple[str, ...] = ()
    """In all but the text and the reasoning of an assistant, sorted."""

    @classmethod
    def find(
        cls, special: tuple[str, ...], added: tuple[str, ...], stop: tuple[str, ...], written: str
    ) -> ControlTokens:
        """Return the control tokens of a tokenizer under a template.

        Args:
            special: the tokenizer's special tokens.
            added: its other added tokens.
            stop: the tokens that a model stops on.
            written: what the template writes around messages, and its source.
        """
        markup = {token for token in added if MARKUP.fullmatch(token) and token in written}
        tags = {token for token in markup if TAG.fullmatch(token)}
        tags |= {token for token in (*special, *added) if NAMED_TAG.fullmatch(token)}
        tags -= {*stop}
        control = {*special} | markup | ({*stop} & {*added})
        # One character is not a token's name that somebody spells out.
        return cls(
            everywhere=tuple(sorted(token for token in control - tags if len(token) > 1)), tags=tuple(sorted(tags))
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Every one of them."""
        return self.everywhere + self.tags

    def __or__(self, other: ControlTokens) -> ControlTokens:
        """Return the control tokens of either."""
        everywhere = {*self.everywhere, *other.everywhere}
        return ControlTokens(
            everywhere=tuple(sorted(everywhere)), tags=tuple(sorted({*self.tags, *other.tags} - everywhere))
        )
