"""Finds where a message's words stand in a rendering: its letters are changed, and what differs then is its own.

"Hi" becomes "Ij": where the two renderings differ, between the first and the last character that does, the message
stands. Tags and punctuation, which templates look at, stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

TAGGED = re.compile(r"(<[^<>\s]*>)")
THOUGHT = re.compile(r"^(.*</think>)(.*)$", re.DOTALL)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NEXT = str.maketrans(
    LETTERS + LETTERS.upper() + "0123456789",
    LETTERS[1:] + LETTERS[0] + LETTERS[1:].upper() + LETTERS[0].upper() + "1234567890",
)
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
OTHER_WORD = "qzoxozq"
"""In place of what has no letter that could be changed."""
Message = dict[str, Any]
ANSWER, REASONING, CALL = "answer", "reasoning", "call"


def changed(text: str) -> str:
    """Return a text with every letter and digit replaced by the next one, outside of tags; if it has none, a word."""
    pieces = TAGGED.split(text)
    other = "".join(piece if at % 2 else piece.translate(NEXT) for at, piece in enumerate(pieces))
    return OTHER_WORD if other == text and text.strip() else other


def changed_value(value: Any) -> Any:
    """Return a JSON value with its texts changed; keys and numbers stay."""
    if isinstance(value, str):
        return changed(value)
    if isinstance(value, list):
        return [changed_value(one) for one in value]
    if isinstance(value, dict):
        return {key: changed_value(one) for key, one in value.items()}
    return value


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A message with some of its words changed, and which: ANSWER, REASONING or CALL."""

    kind: str
    message: Message


def variants(message: Message) -> list[Variant]:
    """Return a message with its answer changed, with its reasoning changed, and with each part of each call changed."""
    found = [Variant(kind=ANSWER, message=one) for one in [_with_other_answer(message)] if one]
    found += [Variant(kind=REASONING, message=one) for one in [_with_other_reasoning(message)] if one]
    return found + [Variant(kind=CALL, message=one) for one in _with_other_calls(message)]


def _with_other_answer(message: Message) -> Message | None:
    """Return a message whose content, but no reasoning in it, is changed; None where there is nothing to change."""
    content = message.get("content") or ""
    thought = THOUGHT.match(content) if message["role"] == "assistant" else None
    kept, said = (thought[1], thought[2]) if thought else ("", content)
    return {**message, "content": kept + changed(said)} if changed(said) != said else None


def _with_other_reasoning(message: Message) -> Message | None:
    """Return a message whose reasoning is changed, beside or inside of the content; None where there is none."""
    out = dict(message)
    for key in REASONING_KEYS:
        if out.get(key):
            out[key] = changed(out[key])
    thought = THOUGHT.match(out.get("content") or "") if message["role"] == "assistant" else None
    if thought and TAGGED.sub("", thought[1]).strip():
        out["content"] = changed(thought[1].removesuffix("</think>")) + "</think>" + thought[2]
    return out if out != message else None


def _with_other_calls(message: Message) -> list[Message]:
    """Return a message once for each call, with that call's name changed, and once with its arguments changed."""
    calls = message.get("tool_calls") or []
    out = []
    for at, call in enumerate(calls):
        function = call["function"]
        others = {"name": changed(function["name"]), "arguments": changed_value(function["arguments"])}
        if isinstance(function["arguments"], int | float):
            others["arguments"] = function["arguments"] + 1
        for key, value in others.items():
            if value != function[key]:
                other = {**call, "function": {**function, key: value}}
                if key == "name" and function[key] in call.get("id", ""):
                    other["id"] = call["id"].replace(function[key], value)  # some templates write the id alone
                out.append({**message, "tool_calls": [*calls[:at], other, *calls[at + 1 :]]})
    return out


def difference(first: str, second: str) -> tuple[int, int] | None:
    """Return the span [start, end) of `first` outside of which it equals another text, or None where it equals it all.

    In "Hi Bob." and "Hi Cpc." that is [3, 6).
    """
    if first == second:
        return None
    start = common(first, second)
    end = common(first[start:][::-1], second[start:][::-1])
    return (start, len(first) - end)


def common(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
