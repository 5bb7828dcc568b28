"""The parts of a turn: where its reasoning and its tool calls stand, with what the template writes around them.

Markers show where a text of reasoning or the name of a tool went, whatever the template's tags are. What belongs to the
reasoning beside its text is learned when a template is loaded, from one answer with and without reasoning: the words
that only the first has. Reasoning that somebody inlined in a content has the same tags, or `<think>`.

    <|channel|>analysis<|message|>Adding.<|end|><|start|>assistant<|channel|>final<|message|>Four<|return|>
    └──────── opener ────────────┘       └─────── closer ─────────┘└───────── without reasoning ──────────┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sft_shards.formats.templates.anchors import CALL, REASONING, Anchor
from sft_shards.formats.templates.rendering import Span, Spoken
from sft_shards.formats.templates.thinking import CLOSING, OPENING, SPACE, think_blocks, without_think_opener


@dataclass(frozen=True, kw_only=True)
class ReasoningMarkup:
    """What a template writes around reasoning, without white space at the ends."""

    opener: str = OPENING
    """"" where it writes nothing."""
    closer: str = CLOSING


THINK = ReasoningMarkup()


def learn_markup(turn: str, without: str, reasoning: str, header: str) -> ReasoningMarkup | None:
    """Return what stands around the reasoning of a turn; None where it cannot be told from the answer.

    >>> learn_markup("Adding.</think>Four.", "Four.", "Adding.", "assistant: <think>")
    ReasoningMarkup(opener='<think>', closer='</think>')

    Args:
        turn: what inference generates, reasoning and all.
        without: the same turn of a conversation without reasoning.
        reasoning: its text.
        header: the generation prompt, which may open the reasoning.
    """
    without = without.lstrip()
    if not turn.endswith(without):
        return None
    before, found, after = turn[: len(turn) - len(without)].partition(reasoning)
    if not found:
        return None
    opener = before.strip() or header[len(without_think_opener(header)) :].strip()
    return ReasoningMarkup(opener=opener, closer=after.strip())


def with_parts(text: str, spoken: Spoken, own: Sequence[Anchor], markup: ReasoningMarkup | None) -> Spoken:
    """Return a turn with the spans of its reasoning and of its calls.

    Args:
        text: the rendering.
        own: the turn's own anchors, in order.
        markup: what the template writes around reasoning, if it writes any.
    """
    reasoning = _find_reasoning(text, spoken, own, markup)
    return replace(spoken, reasoning=reasoning, calls=_find_calls(text, spoken, own, reasoning or ()))


def _find_reasoning(
    text: str, spoken: Spoken, own: Sequence[Anchor], markup: ReasoningMarkup | None
) -> tuple[Span, ...] | None:
    """Return spans of reasoning with its markup and the white space behind; None where a text of it has another."""
    known = [THINK] if markup is None or markup == THINK else [markup, THINK]
    found: list[Span] = []
    for at, anchor in enumerate(own):
        if anchor.kind == REASONING and spoken.start <= anchor.start < spoken.stop:
            limit = own[at + 1].start if at + 1 < len(own) else spoken.stop
            spans = (_around(text, spoken.start, anchor, limit, one) for one in known)
            span = next((span for span in spans if span is not None), None)
            if span is None:
                return None
            found.append(span)
    for one in known:
        found += _inlined(text, spoken, one)
    return tuple(sorted(set(found)))


def _around(text: str, left: int, anchor: Anchor, right: int, markup: ReasoningMarkup) -> Span | None:
    """Return an anchor of reasoning with the markup around it, within [left, right); None where another is there."""
    start = _before_space(text, anchor.start, left)
    if start > left and markup.opener and text.endswith(markup.opener, left, start):
        start = _before_space(text, start - len(markup.opener), left)
        start = start if start == left else _behind_space(text, start)
    elif start > left:
        return None
    closer = _behind_space(text, anchor.end)
    if not text.startswith(markup.closer, closer):
        return None
    return start, max(anchor.end, min(_behind_space(text, closer + len(markup.closer)), right))


def _inlined(text: str, spoken: Spoken, markup: ReasoningMarkup) -> Iterator[Span]:
    """Yield the spans of think blocks in a turn, of which the header may have opened the first."""
    if not (markup.opener and markup.closer):
        return
    start = spoken.start
    header = _before_space(text, start)
    if text.endswith(markup.opener, 0, header) and (end := text.find(markup.closer, start, spoken.stop)) >= 0:
        end = min(_behind_space(text, end + len(markup.closer)), spoken.stop)
        yield start, end
        start = end
    for begin, end in think_blocks(text[start : spoken.stop], markup.opener, markup.closer):
        yield start + begin, start + end


def _find_calls(text: str, spoken: Spoken, own: Sequence[Anchor], reasoning: Sequence[Span]) -> Span | None:
    """Return where a turn's calls stand: between what it says before them and what it says behind, or the stop token.

    White space in front of them is theirs.
    """
    calls = [anchor for anchor in own if anchor.kind == CALL]
    if not calls:
        return None
    said = [(one.start, one.end) for one in own if one.kind != CALL]
    said += [(start, start + len(text[start:end].rstrip())) for start, end in reasoning]
    start = max([spoken.start, *(end for _, end in said if end <= calls[0].start)])
    end = min([spoken.stop, *(start for start, _ in said if start >= calls[-1].end)])
    return start, max(start, end)


def _before_space(text: str, position: int, left: int = 0) -> int:
    """Return where the white space in front of a position begins, not before `left`."""
    while position > left and text[position - 1].isspace():
        position -= 1
    return position


def _behind_space(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    assert found is not None, "white space may be empty"
    return found.end()
