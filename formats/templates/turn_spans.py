"""Where the assistant speaks in a rendering: from the end of the turn's header to the end of its stop token.

The header is what the template writes when it is asked for a generation prompt, so what carries loss is exactly what
inference generates behind that prompt. Where the template marks it with `{% generation %}`, that is taken; where it
does not, markers in the messages show where each text went (see `markers`). Every step that would have to guess rejects
the record instead.

    <|im_start|>assistant\\nHello<|im_end|>\\n
    └─────── header ──────┘└──── spoken ──┘
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor, Anchors
from sft_shards.formats.templates.leading_space import LeadingSpace
from sft_shards.formats.templates.markers import placements, take_out
from sft_shards.formats.templates.rendering import Spoken
from sft_shards.formats.templates.sentinels import GENERATION_END, GENERATION_START
from sft_shards.formats.templates.thinking import TAGS, after_empty_think, find_opened_think

Render = Callable[[list[dict[str, Any]]], str]


def by_generation(text: str, messages: list[dict[str, Any]], stop: re.Pattern[str]) -> tuple[str, tuple[Spoken, ...]]:
    """Return the text without generation marks, and the turns that they stood around.

    The template's own marks decide where a turn begins. Where it ends is decided by the stop token: a template that
    leaves it outside of its block would teach the model never to stop.

    Args:
        text: the rendering of the messages, with `GENERATION_START` and `GENERATION_END` in it.
        stop: matches the tokens that end a turn.

    Raises:
        RecordError: `template_error`, `generation_blocks`, `turn_not_rendered`, `turn_end_unknown`.
    """
    pieces: list[str] = []
    blocks: list[tuple[int, int]] = []
    length, begin = 0, -1
    for piece in re.split(f"([{GENERATION_START}{GENERATION_END}])", text):
        if piece == GENERATION_START and begin < 0:
            begin = length
        elif piece == GENERATION_END and begin >= 0:
            blocks.append((begin, length))
            begin = -1
        elif piece in (GENERATION_START, GENERATION_END):
            raise RecordError("template_error", "the template nests its generation blocks")
        else:
            pieces.append(piece)
            length += len(piece)
    unmarked = "".join(pieces)
    speakers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if len(blocks) != len(speakers):
        detail = f"{len(blocks)} generation blocks for {len(speakers)} assistant turns"
        raise RecordError("generation_blocks", detail)
    out = []
    for number, (start, end) in zip(speakers, blocks, strict=True):
        said = unmarked[start:end]
        core = TAGS.split(messages[number]["content"] or "")[-1].strip()
        if core not in said:
            raise RecordError("turn_not_rendered", f"turn {number} is not in its generation block")
        stops = list(stop.finditer(said))
        if stops:
            stop_start, stop_end = start + stops[-1].start(), start + stops[-1].end()
        elif found := stop.match(unmarked, end):
            stop_start, stop_end = found.span()
        else:
            raise RecordError("turn_end_unknown", f"no stop token in or after the generation block of turn {number}")
        out.append(Spoken(turn=number, start=after_empty_think(unmarked, start), end=stop_end, stop=stop_start))
    return unmarked, tuple(out)


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
    """Return the assistant turns of a rendering, found by rendering it again with markers.

    Args:
        text: the rendering of `messages`, which are those of `conversation`.
        render: renders other messages with the same template.
        prompt: gives the text that inference feeds before a turn, by the turn's number.
        header: what the template writes for a generation prompt, "" where it writes nothing.
        lead: what stands between the generation prompt and the assistant's text (a space, say); the model generates it.
        stop: matches the tokens that end a turn.
        control: matches every control token.

    Raises:
        RecordError: `marks_change_rendering`, `turn_not_rendered`, `turn_repeated`, `turn_start_unknown`,
            `turn_end_unknown`.
    """
    anchors, first_placement = _find_anchors(text, messages, render)
    place = 0
    for number, turn in enumerate(conversation.turns):
        _require_rendered(text, number, messages[number], anchors.of(number), place)
        if turn.role == "assistant" and not anchors.of(number):
            raise RecordError("turn_not_rendered", f"the template leaves turn {number}, an assistant's, out")
        place = max([place, *(anchor.end for anchor in anchors.of(number))])
    speakers = [number for number, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    own = {number: _own_anchors(anchors.of(number), len(conversation.turns[number].tool_calls)) for number in speakers}
    lefts = {number: anchors.end_before(own[number][0].start) for number in speakers}
    starts = {number: _after_header(text, lefts[number], own[number][0], header) for number in speakers}
    # Markers of the first placement enclose white space too, so only the others leave a question about it.
    bare = [] if first_placement else [at for at in speakers if starts[at] is None and own[at][0].kind == CONTENT]
    spaces = LeadingSpace(text, messages, {at: (lefts[at], own[at][0].start) for at in bare}, render)
    spoken = []
    for number in speakers:
        first, last = own[number][0], own[number][-1]
        left, right = lefts[number], anchors.start_after(last.end)
        start = starts[number]
        if start is None:
            start = first.start - spaces.kept(number)
            if first.kind == CALL:
                start = _after_prompt(text, number, left, first, prompt)
            if not header and first.kind == CONTENT and text.endswith(lead, left, start):
                start -= len(lead)
        start = after_empty_think(text, start)
        calls = bool(conversation.turns[number].tool_calls)
        end = len(text) if right is None else right
        stop_start, stop_end = _find_stop(text, last, end, stop, control, number, calls)
        said = [anchor.end for anchor in own[number] if anchor.kind != CALL]
        span = (max([start, *said]), stop_start) if calls else None
        spoken.append(Spoken(turn=number, start=start, end=stop_end, stop=stop_start, calls=span))
    return tuple(spoken)


def _find_anchors(text: str, messages: list[dict[str, Any]], render: Render) -> tuple[Anchors, bool]:
    """Return where the texts of messages stand, and whether the first placement of markers showed it."""
    for attempt, place in enumerate(placements(messages)):
        try:
            unmarked, anchors = take_out(render(place()))
        except RecordError:
            continue  # the template refused the markers; another placement may do
        if unmarked == text and anchors is not None:
            return Anchors(anchors), attempt == 0
    raise RecordError("marks_change_rendering", "the template looks into the texts in a way that cannot be followed")


def _own_anchors(anchors: Sequence[Anchor], calls: int) -> list[Anchor]:
    """Return a turn's own anchors; a template may name a tool again where it answers, which is not the turn's."""
    numbers = count()
    return [anchor for anchor in anchors if anchor.kind != CALL or next(numbers) < calls]


def _require_rendered(text: str, number: int, message: dict[str, Any], anchors: Sequence[Anchor], place: int) -> None:
    """Reject the record unless a turn is in the text, once; `place` is where the texts of the turns before it end."""
    own = [anchor for anchor in anchors if anchor.kind != REASONING]
    contents = sum(anchor.kind == CONTENT for anchor in own)
    if len(own) - contents < len(message.get("tool_calls") or []):
        raise RecordError("turn_not_rendered", f"the template leaves tool calls of turn {number} out")
    content = message.get("content") or ""
    core = TAGS.split(content)[-1].strip() if message["role"] == "assistant" else content.strip()
    if core and not contents and (own or (text.find(core, place) < 0 and core not in text)):
        raise RecordError("turn_not_rendered", f"the template leaves the text of turn {number} out")
    if message["role"] == "assistant" and contents > len(TAGS.split(content)):
        raise RecordError("turn_repeated", f"the template writes turn {number} more than once")


def _after_header(text: str, left: int, first: Anchor, header: str) -> int | None:
    """Return where a turn's header ends, between the text before it and its own first text; None if none is there."""
    if header:
        found = text.rfind(header, left, first.start)
        if found >= 0:
            return found + len(header)
    return find_opened_think(text, left, first.start) if first.kind == REASONING else None


def _after_prompt(text: str, number: int, left: int, first: Anchor, prompt: Callable[[int], str]) -> int:
    """Return where a turn without header and without text of its own begins: behind what inference feeds before it."""
    fed = prompt(number)
    if not text.startswith(fed) or not left <= len(fed) <= first.start:
        raise RecordError("turn_start_unknown", f"turn {number} begins with no header and no text of its own")
    return len(fed)


def _find_stop(
    text: str,
    last: Anchor,
    right: int,
    stop: re.Pattern[str],
    control: re.Pattern[str],
    number: int,
    calls: bool,
) -> tuple[int, int]:
    """Return the span of the stop token behind a turn.

    Between the turn's text and that token there may be nothing but white space and other control tokens, unless the
    turn has tool calls.
    """
    found = stop.search(text, last.end, right)
    if found is None or (not calls and control.sub("", text[last.end : found.start()]).strip()):
        raise RecordError("turn_end_unknown", f"no stop token right after turn {number}")
    return found.span()
