"""Where the assistant speaks in a rendering: from the end of the turn's header to the end of its stop token.

The header is what the template writes when it is asked for a generation prompt, so what carries loss is exactly
what inference generates after that prompt. Where the template marks it with `{% generation %}`, that is taken;
where it does not, marks in the messages show where each text went (see `marks`). Every step that has to guess
refuses instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from formats.conversation import Conversation
from formats.errors import RecordError
from formats.templates.marks import CALL, CONTENT, REASONING, THINK, Anchor, take_out, ways
from formats.templates.rendering import Spoken
from formats.templates.sandbox import GENERATION_END, GENERATION_START

EMPTY_THINK = re.compile(r"<think>\s*</think>\n{0,2}")
EMPTY_THINK_OPENED = re.compile(r"\s*</think>\n{0,2}")
"""Templates write at most an empty line behind the block; white space after that is the turn's own."""
OPENS_THINK = re.compile(r"<think>\s*$")

Render = Callable[[list[dict[str, Any]]], str]


def after_empty_think(text: str, start: int) -> int:
    """Where a turn's own words begin, `start` being the end of its header: after a think block with nothing in it,
    of which the header may hold the first half."""
    pattern = EMPTY_THINK_OPENED if OPENS_THINK.search(text, 0, start) else EMPTY_THINK
    found = pattern.match(text, start)
    return found.end() if found else start


def by_generation(text: str, messages: list[dict[str, Any]], stop: re.Pattern[str]) -> tuple[str, tuple[Spoken, ...]]:
    """The text without the generation marks, and the turns that they stand around.

    The template's own marks decide where a turn begins. Where it ends is decided by the stop token: a template
    that leaves it outside of its block would teach the model never to stop.
    """
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    length, begin = 0, -1
    for piece in re.split(f"([{GENERATION_START}{GENERATION_END}])", text):
        if piece == GENERATION_START and begin < 0:
            begin = length
        elif piece == GENERATION_END and begin >= 0:
            spans.append((begin, length))
            begin = -1
        elif piece in (GENERATION_START, GENERATION_END):
            raise RecordError("template_error", "the template nests its generation blocks")
        else:
            pieces.append(piece)
            length += len(piece)
    plain = "".join(pieces)
    speakers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if len(spans) != len(speakers):
        detail = f"{len(spans)} generation blocks for {len(speakers)} assistant turns"
        raise RecordError("generation_blocks", detail)
    out = []
    for number, (start, end) in zip(speakers, spans, strict=True):
        said = plain[start:end]
        core = THINK.split(messages[number]["content"] or "")[-1].strip()
        if core not in said:
            raise RecordError("turn_not_rendered", f"turn {number} is not in its generation block")
        stops = list(stop.finditer(said))
        if stops:
            stop_start, stop_end = start + stops[-1].start(), start + stops[-1].end()
        elif found := stop.match(plain, end):
            stop_start, stop_end = found.span()
        else:
            raise RecordError("turn_end_unknown", f"no stop token in or after the generation block of turn {number}")
        out.append(Spoken(turn=number, start=after_empty_think(plain, start), end=stop_end, stop=stop_start))
    return plain, tuple(out)


def by_marks(
    text: str,
    conversation: Conversation,
    messages: list[dict[str, Any]],
    *,
    render: Render,
    prompt: Callable[[int], str],
    header: str,
    lead: str,
    stop: re.Pattern[str],
    control: re.Pattern[str],
) -> tuple[Spoken, ...]:
    """The assistant turns of a plain rendering, found by rendering it again with marks.

    Args:
        text: the plain rendering of `messages`.
        header: what the template writes for a generation prompt, "" where it writes nothing.
        prompt: the text that inference feeds before a turn, by the turn's number.
        lead: what then stands between the prompt that inference feeds and the assistant's text (a space, say):
            the model generates it.
        stop: matches the tokens that end a turn.
        control: matches every control token.

    Raises:
        RecordError: `marks_change_rendering`, `turn_not_rendered`, `turn_repeated`, `turn_start_unknown`,
            `turn_end_unknown`.
    """
    anchors, exact = _anchors(text, messages, render)
    for number, turn in enumerate(conversation.turns):
        _check_rendered(text, number, messages[number], anchors)
        if turn.role == "assistant" and not any(anchor.message == number for anchor in anchors):
            raise RecordError("turn_not_rendered", f"the template leaves turn {number}, an assistant's, out")
    spoken = []
    for number, turn in enumerate(conversation.turns):
        if turn.role != "assistant":
            continue
        own = _own(anchors, number, len(turn.tool_calls))
        first, last = own[0], own[-1]
        left = max((anchor.end for anchor in anchors if anchor.end <= first.start), default=0)
        right = min((anchor.start for anchor in anchors if anchor.start >= last.end), default=len(text))
        start = _after_header(text, left, first, header)
        if start is None:
            start = first.start
            if first.kind == CALL:
                start = _after_prompt(text, number, left, first, prompt)
            elif first.kind == CONTENT and not exact:
                start = _untrimmed(text, messages, number, first, left, render)
            if not header and first.kind == CONTENT and text.endswith(lead, left, start):
                start -= len(lead)
        start = after_empty_think(text, start)
        stop_start, stop_end = _stop(text, last, right, stop, control, number, bool(turn.tool_calls))
        calls = None
        if turn.tool_calls:
            said = [anchor.end for anchor in own if anchor.kind != CALL]
            calls = (max([start, *said]), stop_start)
        spoken.append(Spoken(turn=number, start=start, end=stop_end, stop=stop_start, calls=calls))
    return tuple(spoken)


def _anchors(text: str, messages: list[dict[str, Any]], render: Render) -> tuple[list[Anchor], bool]:
    for attempt, way in enumerate(ways(messages)):
        try:
            plain, anchors = take_out(render(way()))
        except RecordError:
            continue  # the template refused the marks; the next way is more careful
        if plain == text and anchors is not None:
            return anchors, attempt == 0
    raise RecordError("marks_change_rendering", "the template looks into the texts in a way that cannot be followed")


def _own(anchors: Sequence[Anchor], number: int, calls: int) -> list[Anchor]:
    """A turn's anchors; templates may name a tool again where it answers, which is not the turn's any more."""
    own = [anchor for anchor in anchors if anchor.message == number]
    spare = [anchor for anchor in own if anchor.kind == CALL][calls:]
    return [anchor for anchor in own if anchor not in spare]


def _check_rendered(text: str, number: int, message: dict[str, Any], anchors: Sequence[Anchor]) -> None:
    own = [anchor for anchor in anchors if anchor.message == number and anchor.kind != REASONING]
    calls = message.get("tool_calls") or []
    if len([anchor for anchor in own if anchor.kind == CALL]) < len(calls):
        raise RecordError("turn_not_rendered", f"the template leaves tool calls of turn {number} out")
    content = message.get("content") or ""
    core = THINK.split(content)[-1].strip() if message["role"] == "assistant" else content.strip()
    if core and not any(anchor.kind == CONTENT for anchor in own) and (own or core not in text):
        raise RecordError("turn_not_rendered", f"the template leaves the text of turn {number} out")
    if message["role"] == "assistant" and len([a for a in own if a.kind == CONTENT]) > len(THINK.split(content)):
        raise RecordError("turn_repeated", f"the template writes turn {number} more than once")


def _after_header(text: str, left: int, first: Anchor, header: str) -> int | None:
    if header:
        found = text.rfind(header, left, first.start)
        if found >= 0:
            return found + len(header)
    if first.kind == REASONING and (opened := OPENS_THINK.search(text, left, first.start)):
        return opened.start()
    return None


def _untrimmed(text: str, messages: list[dict[str, Any]], number: int, first: Anchor, left: int, render: Render) -> int:
    """Where a turn with no header begins if its text has white space in front: with that if the template keeps it.

    Asked by rendering once more with other white space there.
    """
    content = messages[number].get("content") or ""
    lead = content[: len(content) - len(content.lstrip())]
    if not lead or not text.endswith(lead, left, first.start):
        return first.start
    other = {**messages[number], "content": " \n" + content}
    kept = render([other if place == number else message for place, message in enumerate(messages)]) != text
    return first.start - len(lead) if kept else first.start


def _after_prompt(text: str, number: int, left: int, first: Anchor, prompt: Callable[[int], str]) -> int:
    """Where a turn without header and without text of its own begins: behind what inference feeds before it."""
    fed = prompt(number)
    if not text.startswith(fed) or not left <= len(fed) <= first.start:
        raise RecordError("turn_start_unknown", f"turn {number} begins with no header and no text of its own")
    return len(fed)


def _stop(
    text: str,
    last: Anchor,
    right: int,
    stop: re.Pattern[str],
    control: re.Pattern[str],
    number: int,
    calls: bool,
) -> tuple[int, int]:
    """The stop token after a turn; between its text and that, nothing but white space and other control tokens."""
    found = stop.search(text, last.end, right)
    if found is None or (not calls and control.sub("", text[last.end : found.start()]).strip()):
        raise RecordError("turn_end_unknown", f"no stop token right after turn {number}")
    return found.span()
