"""Where the assistant speaks in a rendering: from the end of the turn's header to the end of its stop token.

The header is what the template writes when it is asked for a generation prompt, so what carries loss is exactly
what inference generates after that prompt. Where the template marks it with `{% generation %}`, that is taken;
where it does not, marks in the messages show where each text went (see `marks`). Every step that has to guess
refuses instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import count, pairwise
from typing import Any

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor, Anchors
from sft_shards.formats.templates.markers import take_out, ways
from sft_shards.formats.templates.rendering import Spoken
from sft_shards.formats.templates.sentinels import GENERATION_END, GENERATION_START
from sft_shards.formats.templates.thinking import THINK, after_empty_think, opened_think

OTHER_SPACE = " \n"

Render = Callable[[list[dict[str, Any]]], str]


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
    place = 0
    for number, turn in enumerate(conversation.turns):
        _check_rendered(text, number, messages[number], anchors.of(number), place)
        if turn.role == "assistant" and not anchors.of(number):
            raise RecordError("turn_not_rendered", f"the template leaves turn {number}, an assistant's, out")
        place = max([place, *(anchor.end for anchor in anchors.of(number))])
    speakers = [number for number, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    own = {number: _own(anchors.of(number), len(conversation.turns[number].tool_calls)) for number in speakers}
    lefts = {number: anchors.end_before(own[number][0].start) for number in speakers}
    starts = {number: _after_header(text, lefts[number], own[number][0], header) for number in speakers}
    bare = [] if exact else [at for at in speakers if starts[at] is None and own[at][0].kind == CONTENT]
    leads = _Leads(text, messages, {at: (lefts[at], own[at][0].start) for at in bare}, render)
    spoken = []
    for number in speakers:
        first, last = own[number][0], own[number][-1]
        left, right = lefts[number], anchors.start_after(last.end)
        start = starts[number]
        if start is None:
            start = first.start - leads.kept(number)
            if first.kind == CALL:
                start = _after_prompt(text, number, left, first, prompt)
            if not header and first.kind == CONTENT and text.endswith(lead, left, start):
                start -= len(lead)
        start = after_empty_think(text, start)
        calls = bool(conversation.turns[number].tool_calls)
        stop_start, stop_end = _stop(text, last, len(text) if right is None else right, stop, control, number, calls)
        said = [anchor.end for anchor in own[number] if anchor.kind != CALL]
        span = (max([start, *said]), stop_start) if calls else None
        spoken.append(Spoken(turn=number, start=start, end=stop_end, stop=stop_start, calls=span))
    return tuple(spoken)


def _anchors(text: str, messages: list[dict[str, Any]], render: Render) -> tuple[Anchors, bool]:
    for attempt, way in enumerate(ways(messages)):
        try:
            plain, anchors = take_out(render(way()))
        except RecordError:
            continue  # the template refused the marks; the next way is more careful
        if plain == text and anchors is not None:
            return Anchors(anchors), attempt == 0
    raise RecordError("marks_change_rendering", "the template looks into the texts in a way that cannot be followed")


def _own(anchors: Sequence[Anchor], calls: int) -> list[Anchor]:
    """A turn's anchors; templates may name a tool again where it answers, which is not the turn's any more."""
    numbers = count()
    return [anchor for anchor in anchors if anchor.kind != CALL or next(numbers) < calls]


def _check_rendered(text: str, number: int, message: dict[str, Any], anchors: Sequence[Anchor], place: int) -> None:
    """See that a turn is in the text, `place` being where the texts of the turns before it end."""
    own = [anchor for anchor in anchors if anchor.kind != REASONING]
    contents = sum(anchor.kind == CONTENT for anchor in own)
    if len(own) - contents < len(message.get("tool_calls") or []):
        raise RecordError("turn_not_rendered", f"the template leaves tool calls of turn {number} out")
    content = message.get("content") or ""
    core = THINK.split(content)[-1].strip() if message["role"] == "assistant" else content.strip()
    if core and not contents and (own or (text.find(core, place) < 0 and core not in text)):
        raise RecordError("turn_not_rendered", f"the template leaves the text of turn {number} out")
    if message["role"] == "assistant" and contents > len(THINK.split(content)):
        raise RecordError("turn_repeated", f"the template writes turn {number} more than once")


def _after_header(text: str, left: int, first: Anchor, header: str) -> int | None:
    if header:
        found = text.rfind(header, left, first.start)
        if found >= 0:
            return found + len(header)
    return opened_think(text, left, first.start) if first.kind == REASONING else None


class _Leads:
    """White space in front of the texts of turns that have no header: a turn begins with it if the template keeps it.

    Asked by rendering once more with other white space there: for all turns at once, and where the template does not
    treat them all alike, for each by itself.

    Args:
        places: by turn, where the text before starts to be its own, and where its marked text starts.
    """

    def __init__(
        self, text: str, messages: list[dict[str, Any]], places: Mapping[int, tuple[int, int]], render: Render
    ) -> None:
        self._text, self._messages, self._render = text, messages, render
        self._leads: dict[int, str] = {}
        for number, (left, start) in places.items():
            content = messages[number].get("content") or ""
            lead = content[: len(content) - len(content.lstrip())]
            if lead and text.endswith(lead, left, start):
                self._leads[number] = lead
        self._all: bool | None = None
        if len(self._leads) > 1:
            begins = sorted(places[number][1] - len(lead) for number, lead in self._leads.items())
            pieces = [text[start:end] for start, end in pairwise([0, *begins, len(text)])]
            with suppress(RecordError):
                found = self._with_other(self._leads)
                self._all = False if found == text else True if found == OTHER_SPACE.join(pieces) else None

    def _with_other(self, numbers: Collection[int]) -> str:
        return self._render(
            [
                {**message, "content": OTHER_SPACE + message["content"]} if number in numbers else message
                for number, message in enumerate(self._messages)
            ]
        )

    def kept(self, number: int) -> int:
        """How many characters of it the template keeps in front of a turn."""
        if number not in self._leads or self._all is False:
            return 0
        return len(self._leads[number]) if self._all or self._with_other([number]) != self._text else 0


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
