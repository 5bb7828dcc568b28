"""Invisible marks in messages, to find out where a template puts what a message says.

A template is a program: the only sure way to know where a text ends up is to follow it. Each text of a message is
wrapped in noncharacters (code points that no text may hold, so none is lost by it) and rendered once more; with
the marks taken out, that must be the plain rendering to the letter, or the template looked at the marks and the
next way of placing them is tried. What was measured is then exact, and where no way works the
record is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor
from sft_shards.formats.templates.sentinels import AFTER, CLOSE, OPEN
from sft_shards.formats.templates.thinking import THINK

MARK = re.compile(f"{OPEN}(\\d+)\\.(\\d+){AFTER}|{CLOSE}")


def _wrap(text: str, message: int, kind: int) -> str:
    return f"{OPEN}{message}.{kind}{AFTER}{text}{CLOSE}" if text else text


def _core(text: str, message: int, kind: int) -> str:
    core = text.strip()
    if not core:
        return text
    begin = text.index(core)
    return text[:begin] + _wrap(core, message, kind) + text[begin + len(core) :]


def _segments(text: str, message: int) -> str:
    """Mark the cores of what stands between think tags: templates cut contents there."""
    pieces = THINK.split(text)
    thinking = 0
    for place, piece in enumerate(pieces):
        if place % 2:
            thinking = 1 if piece == "<think>" else 0
        else:
            closes = place + 1 < len(pieces) and pieces[place + 1] == "</think>"
            pieces[place] = _core(piece, message, REASONING if thinking or closes else CONTENT)
    return "".join(pieces)


def _mark_calls(calls: list[Any], message: int) -> list[Any]:
    marked = []
    for call in calls:
        function = call["function"]
        marked.append({**call, "function": {**function, "name": _wrap(function["name"], message, CALL)}})
    return marked


def _mark_message(message: dict[str, Any], number: int, way: Callable[[str, int, int], str]) -> dict[str, Any]:
    out = dict(message)
    if isinstance(message.get("content"), str):
        out["content"] = way(message["content"], number, CONTENT)
    if message.get("reasoning_content"):
        out["reasoning_content"] = out["thinking"] = way(message["reasoning_content"], number, REASONING)
    if message.get("tool_calls"):
        out["tool_calls"] = _mark_calls(message["tool_calls"], number)
    return out


def _mark_core(text: str, message: int, kind: int) -> str:
    return _segments(text, message) if kind == CONTENT else _core(text, message, kind)


def ways(messages: list[dict[str, Any]]) -> list[Callable[[], list[dict[str, Any]]]]:
    """The ways of placing marks, the plainest first.

    1. Around every text, white space included: a template that only copies leaves them alone.
    2. Around what is left when white space at the ends is gone and the text is cut at think tags: templates trim,
       and move reasoning.
    3. The same for assistants alone: templates look at how the texts of others begin and end.
    """

    def every(way: Callable[[str, int, int], str]) -> list[dict[str, Any]]:
        return [_mark_message(message, number, way) for number, message in enumerate(messages)]

    def assistants() -> list[dict[str, Any]]:
        return [
            _mark_message(message, number, _mark_core) if message["role"] == "assistant" else message
            for number, message in enumerate(messages)
        ]

    return [lambda: every(_wrap), lambda: every(_mark_core), assistants]


def take_out(marked: str) -> tuple[str, list[Anchor] | None]:
    """The text without its marks, and where they stood; None for that where a mark has lost its other half."""
    pieces: list[str] = []
    anchors: list[Anchor] = []
    begin = length = 0
    opened: tuple[int, int, int] | None = None
    whole = True
    for match in MARK.finditer(marked):
        piece = marked[begin : match.start()]
        pieces.append(piece)
        length += len(piece)
        begin = match.end()
        if match[1] is not None:
            whole = whole and opened is None
            opened = (int(match[1]), int(match[2]), length)
        elif opened is not None:
            anchors.append(Anchor(message=opened[0], kind=opened[1], start=opened[2], end=length))
            opened = None
        else:
            whole = False
    pieces.append(marked[begin:])
    return "".join(pieces), anchors if whole and opened is None else None
