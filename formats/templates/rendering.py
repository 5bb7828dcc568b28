"""What rendering a conversation gives: a text, where in it the assistant speaks, and which of that carries loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError

Span = tuple[int, int]
"""[start, end), in characters of a text unless said otherwise."""
TRAIN_ON = ("all", "last", "last-run", "weight", "everything")
REWRITTEN_TURNS = ("auto", "skip", "unroll", "train", "refuse")
CALL, CALL_END = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """One assistant turn in the text, [start, end) in characters: all that inference would have generated.

    It begins behind the turn's header (and behind an empty think block), and ends with the stop token.
    """

    turn: int
    """Number of the turn in the conversation."""
    start: int
    end: int
    stop: int
    """Where the stop token begins: `start <= stop < end`."""
    reasoning: tuple[Span, ...] | None = ()
    """Where its reasoning stands, with its tags and the white space behind; None where that is not certain."""
    calls: Span | None = None
    """Where its tool calls stand, if it has any."""
    reasoning_dropped: bool = False
    """Whether the template leaves its reasoning out."""

    def moved(self, place: Callable[[int], int]) -> Spoken:
        """Return the turn in another text, of which `place` gives the position for one of this text."""
        calls = None if self.calls is None else (place(self.calls[0]), place(self.calls[1]))
        found = None if self.reasoning is None else tuple((place(start), place(end)) for start, end in self.reasoning)
        start, end, stop = place(self.start), place(self.end), place(self.stop)
        return replace(self, start=start, end=end, stop=stop, reasoning=found, calls=calls)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """A conversation as one text."""

    text: str
    spoken: tuple[Spoken, ...]
    """The assistant turns, in the order of the text."""
    typed: tuple[Span, ...] = ()
    """Control tokens that somebody typed, which must be encoded as the text they are; in the order of the text."""
    notes: tuple[str, ...] = ()
    """What the template left out without harm to the mask: `tools_ignored`, `reasoning_dropped`."""


@dataclass(frozen=True, kw_only=True)
class TrainOn:
    """Which of the assistant's words carry loss. The stop token of a trained turn always does."""

    turns: str = "all"
    """`all` assistant turns, the `last` one, the `last-run` (those since the last user's turn that was answered: the
    calls and the answer of an agent), those of `weight` 1, or `everything`: every token of the text."""
    reasoning: bool = True
    """Whether reasoning carries loss."""
    tool_calls: bool = True
    """Whether tool calls carry loss."""
    rewritten: str = "auto"
    """One of `REWRITTEN_TURNS`: what becomes of turns that the template writes otherwise than inference meets them."""

    @property
    def asks_histories(self) -> bool:
        """Whether each turn is compared with what inference meets."""
        return self.rewritten in ("skip", "unroll", "refuse")

    def chosen(self, rendering: Rendering, conversation: Conversation) -> list[Spoken]:
        """Return the turns that carry loss, whether the template rewrites them or not."""
        if self.turns == "last":
            return list(rendering.spoken[-1:])
        if self.turns == "last-run":
            answered = conversation.turns[: rendering.spoken[-1].turn]
            asked = max((at for at, turn in enumerate(answered) if turn.role == "user"), default=-1)
            return [spoken for spoken in rendering.spoken if spoken.turn > asked]
        if self.turns == "weight":
            return [spoken for spoken in rendering.spoken if conversation.turns[spoken.turn].weight]
        return list(rendering.spoken)

    def spans(
        self, rendering: Rendering, conversation: Conversation, chosen: Sequence[Spoken] | None = None
    ) -> list[Span]:
        """Return the trained spans of the text, in characters: in order, not empty, not overlapping.

        Args:
            chosen: the turns that carry loss, in the order of the text (default: what `chosen` gives).

        Raises:
            RecordError: `reasoning_unknown`, reasoning carries no loss, and it is not certain where it stands.
        """
        if self.turns == "everything":
            return [(0, len(rendering.text))]
        turns = self.chosen(rendering, conversation) if chosen is None else chosen
        return [span for spoken in turns for span in self._trained_parts(rendering.text, spoken)]

    def _trained_parts(self, text: str, spoken: Spoken) -> list[Span]:
        """Return one turn without what carries no loss: [2, 9) without the hole [4, 6) is [2, 4) and [6, 9)."""
        holes: list[Span] = []
        said = text[spoken.start : spoken.stop]
        if not self.reasoning:
            if spoken.reasoning is None:
                detail = f"turn {spoken.turn} has reasoning of which it is not certain where it begins and ends"
                raise RecordError("reasoning_unknown", detail)
            holes += spoken.reasoning
        if not self.tool_calls:
            holes += [_shift(span, spoken.start) for span in written_calls(said)]
            holes += [spoken.calls] if spoken.calls else []
        spans, begin = [], spoken.start
        for start, end in sorted(holes):
            if begin < start:
                spans.append((begin, start))
            begin = max(begin, end)
        spans.append((begin, spoken.end))
        return spans


def written_calls(text: str) -> Iterator[Span]:
    """Yield the spans [start, end) of whole tool calls between tags, each with the white space before it.

    In "a <tool_call>x</tool_call>" the span is [1, 26). Each character is looked at once, however many tags there are.
    """
    before, tag = 0, text.find(CALL)
    while tag >= 0 and (closing := text.find(CALL_END, tag)) >= 0:
        start = tag
        while start > before and text[start - 1].isspace():
            start -= 1
        before = closing + len(CALL_END)
        yield start, before
        tag = text.find(CALL, before)


def _shift(span: Span, by: int) -> Span:
    return span[0] + by, span[1] + by
