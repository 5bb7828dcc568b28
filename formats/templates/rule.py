"""The rule: an assistant turn is what a model has to generate behind what inference feeds it, with its stop token.

For turn k inference feeds `apply_chat_template(messages[:k], tools, add_generation_prompt=True)`. Where this prompt is
a prefix of the whole rendering, the turn begins at its end (behind an empty think block, which is the template's doing)
and ends with the first stop token that the template writes from there on. Where it is no prefix, the template rewrites
history, and the rule says nothing of that turn.

    <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello<|im_end|>\\n
    └───────────────────── prompt ─────────────────────┘└─── the turn ──┘

The rule renders once for each turn, which takes quadratic time. So it judges what `turn_spans` locates with few
renderings: on probes when a template is loaded, on some turns of a sample of a job's records, and on all records of a
template that differed from it on a probe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.rendering import Span, Spoken
from sft_shards.formats.templates.thinking import after_empty_think, is_empty_think

MOST_SAMPLED = 8
"""Turns of a sampled conversation that are compared: each costs a rendering."""


def rule_span(text: str, prompt: str, stop: re.Pattern[str], before: int | None = None) -> Span | None:
    """Return the span [start, end) that the rule gives a turn, in characters; None where it gives none.

    In "Q: hi A: yes.Q: " with the prompt "Q: hi A:" and the stop token "." that is [8, 13).

    Args:
        text: the whole rendering.
        prompt: what inference feeds before the turn.
        stop: matches the tokens that end a turn.
        before: where the next turn starts, before which a stop token counts (default: the end of the text).
    """
    if not text.startswith(prompt):
        return None
    start = after_empty_think(text, len(prompt))
    found = stop.search(text, start, len(text) if before is None else before)
    return (start, found.end()) if found else None


def require_rule(
    text: str, spoken: Sequence[Spoken], prompt: Callable[[int], str], stop: re.Pattern[str], *, every: bool = True
) -> None:
    """Compare located turns with the rule, turn by turn.

    Args:
        text: the whole rendering.
        spoken: its turns, as they were located.
        prompt: gives what inference feeds before a turn, by the turn's number.
        stop: matches the tokens that end a turn.
        every: whether all turns are compared; else at most `MOST_SAMPLED`, the first and the last among them.

    Raises:
        RecordError: `turn_differs`, with both spans.
    """
    nexts = [*(one.start for one in spoken[1:]), len(text)]
    last = len(spoken) - 1
    chosen = range(last + 1) if every else sorted({at * last // (MOST_SAMPLED - 1) for at in range(MOST_SAMPLED)})
    for one, before in ((spoken[at], nexts[at]) for at in chosen):
        try:
            fed = prompt(one.turn)
        except RecordError:
            continue  # the template takes no conversation that ends here, so inference never comes here
        span = rule_span(text, fed, stop, max(before, one.end))
        if span is not None and is_empty_think(text, len(fed), one.start):
            span = (one.start, span[1])  # the rule cannot say which newlines behind the block are the answer's
        if span is not None and span != (one.start, one.end):
            located, ruled = _shown(text, (one.start, one.end)), _shown(text, span)
            detail = f"turn {one.turn} was located at {located}, but inference generates {ruled}"
            raise RecordError("turn_differs", detail)


def require_one_stop(text: str, spoken: Sequence[Spoken], stop: re.Pattern[str]) -> None:
    """Reject a record of which a turn goes on behind a stop token, where inference has ended.

    Raises:
        RecordError: `turn_differs`.
    """
    for one in spoken:
        found = stop.search(text, one.start, one.stop)
        if found:
            detail = f"turn {one.turn} goes on behind {found[0]!r}, where inference ends; split the turn there"
            raise RecordError("turn_differs", detail)


def _shown(text: str, span: Span) -> str:
    """Return a span with its first and last characters: `[8, 13) " yes."`."""
    start, end = span
    said = text[start:end]
    return f"[{start}, {end}) {said if len(said) <= 60 else said[:30] + '…' + said[-29:]!r}"
