"""Omissions: texts, tool calls and reasoning that a template leaves out, by where markers show that the others went.

A model that is trained without what was said learns to answer without it, or to say nothing. So a record of which the
template leaves out a text or a call is rejected, and the detail says what can be done; dropped reasoning is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.nesting import parse_json
from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor, Anchors
from sft_shards.formats.templates.rendering import Spoken
from sft_shards.formats.templates.thinking import TAGS, inlined_reasoning


def require_all_rendered(
    text: str, messages: list[dict[str, Any]], anchors: Anchors, *, arguments: bool = True
) -> None:
    """Reject a record of which the template leaves a text or a tool call out, or writes a turn twice.

    Args:
        arguments: whether the template writes the arguments of calls.

    Raises:
        RecordError: `turn_not_rendered`, `turn_repeated`.
    """
    place = 0
    for number, message in enumerate(messages):
        _require_rendered(text, number, message, anchors, place)
        calls = message.get("tool_calls") or []
        if not arguments and any(call["function"]["arguments"] for call in calls):
            detail = f"the template leaves the arguments of calls out, those of turn {number} first"
            raise RecordError("turn_not_rendered", f"{detail}; give one that writes them with --template")
        if message["role"] == "assistant" and not anchors.of(number):
            raise RecordError("turn_not_rendered", f"the template leaves turn {number}, an assistant's, out")
        place = max([place, *(anchor.end for anchor in anchors.of(number))])


def lacks_reasoning(text: str, message: dict[str, Any], anchors: Sequence[Anchor], first_placement: bool) -> bool:
    """Return whether a message has reasoning, beside its content or in it, that the template leaves out.

    Of a message that has both, it is the reasoning beside the content that counts.

    Args:
        text: the rendering.
        anchors: those of the message.
        first_placement: whether the first placement of markers showed them, which encloses contents as a whole.
    """
    beside = (message.get("reasoning_content") or "").strip()
    as_a_whole = first_placement and any(anchor.kind == CONTENT for anchor in anchors)
    inside = not as_a_whole and inlined_reasoning(message.get("content") or "")
    written = [text[anchor.start : anchor.end].strip() for anchor in anchors if anchor.kind == REASONING]
    if beside and inside:
        return beside not in written
    return bool(beside or inside) and not written


def _require_rendered(text: str, number: int, message: dict[str, Any], anchors: Anchors, place: int) -> None:
    """Reject the record unless a turn is in the text, once; `place` is where the texts of the turns before it end."""
    own = [anchor for anchor in anchors.of(number) if anchor.kind != REASONING]
    contents = sum(anchor.kind == CONTENT for anchor in own)
    calls = message.get("tool_calls") or []
    if len(own) - contents < len(calls):
        raise RecordError("turn_not_rendered", lost_calls(text, number, calls, len(own) - contents))
    for call, around in zip(calls, _around_calls(text, number, len(calls), anchors), strict=True):
        if not _has_arguments(around, call["function"]["arguments"]):
            detail = f"the template leaves the arguments of a call of turn {number} out, which are no object: mend them"
            raise RecordError("turn_not_rendered", detail)
    content = message.get("content") or ""
    core = TAGS.split(content)[-1].strip() if message["role"] == "assistant" else content.strip()
    unmarked = not own and not anchors.complete and (text.find(core, place) >= 0 or core in text)
    if core and not contents and not unmarked:
        raise RecordError("turn_not_rendered", _lost_text(number, message))
    if message["role"] == "assistant" and contents > len(TAGS.split(content)):
        raise RecordError("turn_repeated", f"the template writes turn {number} more than once")


def _around_calls(text: str, number: int, calls: int, anchors: Anchors) -> list[str]:
    """Return for each call of a turn what the template writes around its name, up to the texts beside it."""
    named = [anchor for anchor in anchors.of(number) if anchor.kind == CALL][:calls]
    behind = anchors.next_start(number, named[-1].end) if named else None
    ends = [*(anchor.start for anchor in named[1:]), len(text) if behind is None else behind]
    return [text[anchors.end_before(anchor.start) : end] for anchor, end in zip(named, ends, strict=False)]


def _has_arguments(around: str, arguments: Any) -> bool:
    """Return whether the arguments of a call stand in what is written around its name, if they are no object.

    Whether a template writes objects is found out with a probe (see `closings.writes_arguments`).
    """
    if isinstance(arguments, str):
        words = arguments.strip()
        return _is_object(words) or any(form in around for form in (words, *(text[1:-1] for text in _as_json(words))))
    return isinstance(arguments, dict | None) or any(form in around for form in (*_as_json(arguments), str(arguments)))


def _is_object(words: str) -> bool:
    try:
        return isinstance(parse_json(words), dict)
    except (RecordError, ValueError):
        return False


def _as_json(value: Any) -> Iterator[str]:
    """Yield the JSON texts of a value that templates write."""
    for ascii_ in (False, True):
        yield json.dumps(value, ensure_ascii=ascii_)
        yield json.dumps(value, ensure_ascii=ascii_, separators=(",", ":"))


def lost_calls(text: str, number: int, calls: Sequence[dict[str, Any]], written: int) -> str:
    """Return what to do about calls that a template leaves out."""
    lost = f"the template leaves tool calls of turn {number} out"
    if written:
        return f"{lost}: it writes {written} of {len(calls)}; give each call a turn of its own"
    if all(call.get("id") and call["id"] in text for call in calls):
        name = calls[0]["function"]["name"]
        return f"{lost}: it writes their ids alone, which must hold the names, as functions.{name}:0"
    return f"{lost}; give one that writes them with --template"


def _lost_text(number: int, message: dict[str, Any]) -> str:
    """Return what to do about a text that a template leaves out."""
    lost = f"the template leaves the text of turn {number} out"
    if message["role"] in ("system", "developer"):
        return (
            f"{lost}, a {message['role']} prompt: put it in front of the first user's text, or give another --template"
        )
    if message.get("tool_calls"):
        return f"{lost}, beside its calls: move it into the reasoning or a turn of its own, or give another --template"
    return f"{lost}; give another --template"


def notes_of(text: str, tools: list[dict[str, Any]] | None, spoken: Sequence[Spoken]) -> tuple[str, ...]:
    """Return what the template left out: `tools_ignored`, `reasoning_dropped`."""
    notes = []
    names = (tool.get("function", tool).get("name") for tool in tools or ())
    if not _all_in(text, (str(name) for name in names if name is not None)):
        notes.append("tools_ignored")
    if any(one.reasoning_dropped for one in spoken):
        notes.append("reasoning_dropped")
    return tuple(notes)


def _all_in(text: str, words: Iterable[str]) -> bool:
    """Return whether a text holds all of several words.

    Templates write them in their order, so each is first looked for behind the one before: that takes linear time.
    """
    place = 0
    for word in words:
        found = text.find(word, place)
        if found < 0 and word not in text:
            return False
        place = max(place, found)
    return True
