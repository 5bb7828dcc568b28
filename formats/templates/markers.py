"""Markers: invisible brackets around the texts of messages, which show where a template puts each text.

A template is a program: the only sure way to know where a text ends up is to follow it. Each text of a message is put
between two sentinels with its number, and the conversation is rendered once more. Without the markers that must be the
same text, character by character; if it is not, the template looked at the markers, and another placement is tried.
What was found is then exact. Where no placement works, the record is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor
from sft_shards.formats.templates.sentinels import MARK_CLOSE, MARK_NUMBERED, MARK_OPEN, REASONING_KEYS
from sft_shards.formats.templates.thinking import OPENING, TAGS

MARKER = re.compile(f"{MARK_OPEN}(\\d+)\\.(\\d+){MARK_NUMBERED}|{MARK_CLOSE}")
"""An opening marker with the number of the message and the kind of text, or a closing one."""
Placement = Callable[[str, int, int], str]
"""Marks a text, given the number of its message and its kind (see `Anchor`)."""


def placements(messages: list[dict[str, Any]], *, by_id: bool = False) -> list[Callable[[], list[dict[str, Any]]]]:
    """Return ways to mark messages, in the order in which to try them; each gives a marked copy when called.

    1. Around every text, white space included: a template that only copies texts leaves them alone.
    2. Around what is left when white space at the ends is gone and the text is cut at think tags: templates strip
       texts, and move reasoning.
    3. The same for assistants alone: templates look at how the texts of others begin and end.

    Args:
        messages: the messages to mark.
        by_id: whether the ids of tool calls are marked in place of their names: some templates write only these.
    """

    def every(place: Placement) -> list[dict[str, Any]]:
        return [_mark_message(message, number, place, by_id) for number, message in enumerate(messages)]

    def assistants() -> list[dict[str, Any]]:
        return [
            _mark_message(message, number, _mark_cores, by_id) if message["role"] == "assistant" else message
            for number, message in enumerate(messages)
        ]

    return [lambda: every(_mark), lambda: every(_mark_cores), assistants]


def take_out(marked: str) -> tuple[str, list[Anchor] | None]:
    """Return the text without its markers, and where they stood; None for the second if one has no partner."""
    pieces: list[str] = []
    anchors: list[Anchor] = []
    begin = length = 0
    opened: tuple[int, int, int] | None = None
    paired = True
    for match in MARKER.finditer(marked):
        piece = marked[begin : match.start()]
        pieces.append(piece)
        length += len(piece)
        begin = match.end()
        if match[1] is not None:
            paired = paired and opened is None
            opened = (int(match[1]), int(match[2]), length)
        elif opened is not None:
            anchors.append(Anchor(message=opened[0], kind=opened[1], start=opened[2], end=length))
            opened = None
        else:
            paired = False
    pieces.append(marked[begin:])
    return "".join(pieces), anchors if paired and opened is None else None


def _mark_message(message: dict[str, Any], number: int, place: Placement, by_id: bool) -> dict[str, Any]:
    out = dict(message)
    if isinstance(message.get("content"), str):
        out["content"] = place(message["content"], number, CONTENT)
    for key in ("instruction", "input"):
        if isinstance(message.get(key), str):
            out[key] = place(message[key], number, CONTENT)
    if message.get("reasoning_content"):
        marked = place(message["reasoning_content"], number, REASONING)
        out |= {key: marked for key in REASONING_KEYS if key in message}
    if message.get("tool_calls"):
        out["tool_calls"] = [_mark_call(call, number, by_id) for call in message["tool_calls"]]
    return out


def _mark_call(call: dict[str, Any], message: int, by_id: bool) -> dict[str, Any]:
    if by_id:
        return {**call, "id": _mark(str(call.get("id") or ""), message, CALL)}
    function = call["function"]
    return {**call, "function": {**function, "name": _mark(function["name"], message, CALL)}}


def _mark(text: str, message: int, kind: int) -> str:
    """Mark a text as it is; an empty one stays empty."""
    return f"{MARK_OPEN}{message}.{kind}{MARK_NUMBERED}{text}{MARK_CLOSE}" if text else text


def _mark_cores(text: str, message: int, kind: int) -> str:
    """Mark a text without the white space at its ends, a content in the pieces between its think tags."""
    if kind != CONTENT:
        return _mark_core(text, message, kind)
    pieces = TAGS.split(text)  # every other piece is a tag
    thinking = False
    for place, piece in enumerate(pieces):
        if place % 2:
            thinking = piece == OPENING
        else:
            closes = place + 1 < len(pieces) and pieces[place + 1] != OPENING
            pieces[place] = _mark_core(piece, message, REASONING if thinking or closes else CONTENT)
    return "".join(pieces)


def _mark_core(text: str, message: int, kind: int) -> str:
    core = text.strip()
    if not core:
        return text
    begin = text.index(core)
    return text[:begin] + _mark(core, message, kind) + text[begin + len(core) :]
