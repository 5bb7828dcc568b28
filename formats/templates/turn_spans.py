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
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor, Anchors
from sft_shards.formats.templates.generation_prompt import GenerationPrompt
from sft_shards.formats.templates.leading_space import LeadingSpace
from sft_shards.formats.templates.markers import placements, take_out
from sft_shards.formats.templates.omissions import lost_calls
from sft_shards.formats.templates.rendering import Span, Spoken
from sft_shards.formats.templates.sentinels import GENERATION_END, GENERATION_START
from sft_shards.formats.templates.thinking import (
    TAGS,
    after_empty_think,
)
from sft_shards.formats.templates.turn_starts import (
    after_header,
    after_prompt,
    behind_prompt,
    behind_words,
    prompts_asked_once,
    without_header,
)

MESSAGE_END = re.compile(r"\s*(<\|end\|>)")
"""What ends each message in gpt-oss's history but the last, where the model itself generates `<|return|>`."""
Render = Callable[[list[dict[str, Any]]], str]


def take_out_blocks(text: str) -> tuple[str, list[Span]]:
    """Return a text without its generation marks, and the blocks [start, end) that they stood around.

    Raises:
        RecordError: `template_error`, blocks are nested.
    """
    pieces: list[str] = []
    blocks: list[Span] = []
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
    return "".join(pieces), blocks


def require_one_speaker(messages: list[dict[str, Any]], anchors: Anchors, start: int, end: int) -> None:
    """Reject a record of which a generation block [start, end) holds a text that is no assistant's.

    Raises:
        RecordError: `generation_blocks`.
    """
    for number in anchors.messages_between(start, end):
        if messages[number]["role"] != "assistant":
            detail = f"a generation block holds the text of turn {number}, which is no assistant's"
            raise RecordError("generation_blocks", detail)


def by_blocks(
    text: str,
    blocks: Sequence[Span],
    messages: list[dict[str, Any]],
    anchors: Anchors,
    stop: re.Pattern[str],
) -> tuple[Spoken, ...]:
    """Return the turns that a template's generation blocks stand around, checked by where the texts went.

    The blocks decide where a turn begins. Where it ends is decided by the stop token: a template that leaves it outside
    of its block would teach the model never to stop. A turn may have several blocks, of which one holds the stop token
    alone.

    Args:
        text: the rendering of the messages, without generation marks.
        blocks: spans [start, end), in the order of the text.
        anchors: where the texts of the messages stand; all of them were found (see `require_all_rendered`).
        stop: matches the tokens that end a turn.

    Raises:
        RecordError: `generation_blocks`, `turn_end_unknown`.
    """
    speakers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    joined: list[Span] = []
    for start, end in blocks:
        closes = joined and not stop.sub("", text[start:end]).strip() and not text[joined[-1][1] : start].strip()
        if closes:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    if len(joined) != len(speakers):
        detail = f"{len(joined)} generation blocks for {len(speakers)} assistant turns"
        raise RecordError("generation_blocks", detail)
    out = []
    for number, (start, end) in zip(speakers, joined, strict=True):
        for anchor in own_anchors(anchors.of(number), len(messages[number].get("tool_calls") or [])):
            if not start <= anchor.start <= anchor.end <= end:
                raise RecordError("generation_blocks", f"the generation block of turn {number} leaves part of it out")
        other = anchors.other_between(number, start, end)
        if other is not None:
            detail = f"the generation block of turn {number} holds the text of turn {other}"
            raise RecordError("generation_blocks", detail)
        stops = list(stop.finditer(text, start, end))
        if stops:
            stop_start, stop_end = stops[-1].span()
        elif found := stop.match(text, end):
            stop_start, stop_end = found.span()
        else:
            raise RecordError("turn_end_unknown", f"no stop token in or after the generation block of turn {number}")
        own = next((anchor.start for anchor in anchors.of(number) if anchor.kind == CONTENT), None)
        out.append(Spoken(turn=number, start=after_empty_think(text, start, own), end=stop_end, stop=stop_start))
    return tuple(out)


def by_marks(
    text: str,
    conversation: Conversation,
    messages: list[dict[str, Any]],
    *,
    anchors: Anchors,
    first_placement: bool,
    render: Render,
    prompt: Callable[[int], str],
    shown: GenerationPrompt,
    stop: re.Pattern[str],
    control: re.Pattern[str],
    every_prompt: bool = False,
    alike: bool = False,
) -> tuple[Spoken, ...]:
    """Return the assistant turns of a rendering, located by markers.

    Args:
        text: the rendering of `messages`, which are those of `conversation`.
        anchors: where the texts of the messages stand; all of them were found (see `require_all_rendered`).
        first_placement: whether the first placement of markers showed it.
        render: renders other messages with the same template.
        prompt: gives the text that inference feeds before a turn, by the turn's number.
        shown: what the template writes in front of answers.
        stop: matches the tokens that end a turn.
        control: matches every control token.
        every_prompt: whether each turn's own prompt is looked for first, since the header that a template writes for
            one question is not the one that it writes everywhere.
        alike: whether inference feeds the same words behind texts that stand alike (see `turn_starts.is_bare`).

    Raises:
        RecordError: `turn_start_unknown`, `turn_end_unknown`, `turn_interrupted`.
    """
    header, bare, lead, gap = shown.header, shown.bare, shown.lead, shown.gap
    speakers = [number for number, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    own = {number: own_anchors(anchors.of(number), len(conversation.turns[number].tool_calls)) for number in speakers}
    lefts = {number: anchors.end_before(own[number][0].start) for number in speakers}
    starts = {number: after_header(text, lefts[number], own[number][0], header, gap, lead) for number in speakers}
    by_words: set[int] = set()
    once = prompt if every_prompt or not alike else _asked_once(text, messages, own, lefts, prompt)
    for number in speakers:
        other = anchors.other_between(number, own[number][0].start, own[number][-1].end)
        if other is not None:
            detail = f"the template writes the text of turn {other} inside of turn {number}, the assistant's"
            raise RecordError("turn_interrupted", detail)
        called = [anchor for anchor in own[number] if anchor.kind == CALL]
        if len(called) > 1 and stop.search(text, called[0].end, called[-1].start):
            lost = lost_calls(text, number, conversation.turns[number].tool_calls, 1)
            raise RecordError("turn_not_rendered", lost)
        twice = bool(header) and text.count(header, lefts[number], own[number][0].start) > 1
        # Behind an answer and behind a system prompt a template may write no generation prompt.
        unasked = number > 0 and conversation.turns[number - 1].role not in ("user", "tool")
        if twice or unasked or (every_prompt and header):
            fed = behind_prompt(text, lefts[number], own[number], number, once)
            if fed is None and unasked and behind_words(text, number, lefts[number], own[number][0].start, prompt):
                starts[number] = None
                by_words.add(number)
                continue
            starts[number] = starts[number] if fed is None else fed
        if starts[number] is None and header:
            starts[number] = without_header(text, number, lefts[number], own[number], header, bare, once)
    # Markers of the first placement enclose white space too, so only the others leave a question about it.
    asked = (
        []
        if first_placement
        else [at for at in speakers if _may_begin_with_space(text, starts[at], own[at][0], messages[at])]
    )
    spaces = LeadingSpace(text, messages, {at: (lefts[at], own[at][0].start) for at in asked}, render)
    opens = bare != header
    spoken: list[Spoken] = []
    for number in speakers:
        first, last = own[number][0], own[number][-1]
        left, right = lefts[number], anchors.next_start(number, last.end)
        start = starts[number]
        if start is None:
            start = first.start - spaces.kept(number)
            if header or number in by_words or first.kind == CALL or text[left:start] != gap:
                start = after_prompt(text, number, left, first.start, start, shown, prompt)
            elif first.kind == CONTENT and text.endswith(lead, left, start):
                start -= len(lead)
        if spoken and start < spoken[-1].end:
            detail = f"turn {number} begins where inference would, before turn {spoken[-1].turn} ends; join the two"
            raise RecordError("turn_differs", detail)
        said = first.start - spaces.kept(number) if first.kind == CONTENT else None
        start = after_empty_think(text, start, said, opened=opens)
        calls = bool(conversation.turns[number].tool_calls)
        end = len(text) if right is None else right
        stop_start, stop_end = _find_stop(text, last, end, stop, control, number, calls, shown.close)
        spoken.append(Spoken(turn=number, start=start, end=stop_end, stop=stop_start))
    return tuple(spoken)


def _asked_once(
    text: str,
    messages: list[dict[str, Any]],
    own: Mapping[int, list[Anchor]],
    lefts: Mapping[int, int],
    prompt: Callable[[int], str],
) -> Callable[[int], str | None]:
    """Return what gives the prompts of turns, rendering one for all turns that stand alike.

    These are turns with the same words in front of them, behind two messages of the same roles with as many calls, both
    in the last run of the assistant, behind the last question, or both in earlier ones; the first and the last turn
    stand alone.
    """
    ends = (next(iter(own), None), next(reversed(own), None))
    last = max((number for number, one in enumerate(messages) if one["role"] == "user"), default=-1)
    contexts = {
        number: (
            text[lefts[number] : anchors[0].start],
            number if number in ends else None,
            number > last,
            *(
                (one["role"], bool(one.get("content")), len(one.get("tool_calls") or ()))
                for one in messages[max(0, number - 2) : number]
            ),
        )
        for number, anchors in own.items()
    }
    return prompts_asked_once(text, prompt, lefts, contexts)


def find_anchors(text: str, messages: list[dict[str, Any]], render: Render) -> tuple[Anchors, bool]:
    """Return where the texts of messages stand, and whether the first placement of markers showed it.

    Raises:
        RecordError: `marks_change_rendering`, no placement of markers leaves the rendering as it is.
    """
    found = _follow(text, placements(messages), render)
    if found is not None and _lacks_calls(messages, found[0]):
        found = _follow(text, placements(messages, by_id=True), render) or found
    if found is not None:
        return found
    raise RecordError("marks_change_rendering", "the template looks into the texts in a way that cannot be followed")


def _follow(
    text: str, ways: Sequence[Callable[[], list[dict[str, Any]]]], render: Render
) -> tuple[Anchors, bool] | None:
    for attempt, place in enumerate(ways):
        try:
            unmarked, anchors = take_out(render(place()))
        except RecordError:
            continue  # the template refused the markers; another placement may do
        if unmarked == text and anchors is not None:
            return Anchors(anchors, complete=attempt < len(ways) - 1), attempt == 0
    return None


def _lacks_calls(messages: list[dict[str, Any]], anchors: Anchors) -> bool:
    """Return whether fewer names of tools stand in the text than are called, though ids of the calls hold them."""
    return any(
        sum(anchor.kind == CALL for anchor in anchors.of(number)) < len(message["tool_calls"])
        and all(call["function"]["name"] in (call.get("id") or "") for call in message["tool_calls"])
        for number, message in enumerate(messages)
        if message.get("tool_calls")
    )


def own_anchors(anchors: Sequence[Anchor], calls: int) -> list[Anchor]:
    """Return a turn's own anchors; a template may name a tool again where it answers, which is not the turn's."""
    numbers = count()
    return [anchor for anchor in anchors if anchor.kind != CALL or next(numbers) < calls]


def _may_begin_with_space(text: str, start: int | None, first: Anchor, message: dict[str, Any]) -> bool:
    """Return whether a turn's own white space may stand in front of its text: without a header, or behind a block."""
    if first.kind != CONTENT or start is None:
        return first.kind == CONTENT
    return start < after_empty_think(text, start) <= first.start and not TAGS.search(message.get("content") or "")


def _find_stop(
    text: str,
    last: Anchor,
    right: int,
    stop: re.Pattern[str],
    control: re.Pattern[str],
    number: int,
    calls: bool,
    close: str,
) -> tuple[int, int]:
    """Return the span of the stop token behind a turn.

    Between the turn's text and that token there may be nothing but white space and other control tokens, or `close`,
    which every answer has there, unless the turn has tool calls or nothing but reasoning, whose markup stands there.
    """
    closing = MESSAGE_END.match(text, last.end, right) if right < len(text) else None
    if last.kind == CONTENT and closing and not stop.match(text, closing.start(1)):
        return closing.start(), closing.start()  # history ends with another token than what was generated
    found = stop.search(text, last.end, right)
    marked_up = calls or last.kind == REASONING
    between = text[last.end : found.start()].strip() if found else ""
    if found is None or (not marked_up and between != close and control.sub("", between).strip()):
        behind = text[last.end : last.end + 60]
        detail = f"no stop token right after turn {number}, but {behind!r}" if behind else f"nothing ends turn {number}"
        token = control.match(behind.lstrip())
        if token and found is None:
            detail += f"; if the model stops on {token[0]!r}, list it as eos_token_id in generation_config.json"
        raise RecordError("turn_end_unknown", detail)
    return found.span()
