"""Where an assistant turn starts: behind its header, which history may write otherwise than the generation prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.anchors import CALL, CONTENT, REASONING, Anchor
from sft_shards.formats.templates.generation_prompt import GenerationPrompt
from sft_shards.formats.templates.sentinels import all_texts
from sft_shards.formats.templates.thinking import CLOSING, find_opened_think, without_think_opener

WORDS = re.compile(r"\S+")
BARE_KEYS = {"assistant": {"role", "content", "tool_calls"}, "tool": {"role", "content", "name", "tool_call_id"}}
"""The keys of messages with calls and results, and nothing else, by role."""
SWITCH = r"/\w*think"
"""Matches what switches reasoning on or off in a text, and closing think tags."""


def after_header(text: str, left: int, first: Anchor, header: str, gap: str, lead: str) -> int | None:
    """Return where a turn's header ends, between the text before it and its own first text; None if none is there.

    A template without a generation prompt has no header. There, reasoning that was inlined shows the start of a turn:
    behind what stands in front of any answer.
    """
    if header:
        found = text.rfind(header, left, first.start)
        if found >= 0:
            return found + len(header)
        return None
    opened = _opened_think(text, left, first)
    return None if opened is None or not text.startswith(gap, left) else left + len(gap) - len(lead)


def without_header(
    text: str,
    number: int,
    left: int,
    own: Sequence[Anchor],
    header: str,
    bare: str,
    prompt: Callable[[int], str | None],
) -> int | None:
    """Return where a turn begins whose header is not the one of the generation prompt; None if that is not seen.

    That is behind what inference feeds, where this is a prefix of the text, with the opener of reasoning at its end or
    without: a system prompt may change the header, results of tools may need none, and an answer may bring the
    `<think>` itself that the header ends with. Else it is behind the header that answers have in the template's
    history: without the opener of reasoning, which templates leave out where they drop reasoning.
    """
    fed = behind_prompt(text, left, own, number, prompt, without_think_opener)
    if fed is not None:
        return fed
    found = text.rfind(bare, left, own[0].start) if bare and bare != header else -1
    if found >= 0:
        return found + len(bare)
    opened = _opened_think(text, left, own[0])
    words = None if opened is None else behind_words(text, number, left, opened, prompt)
    return None if words is not None and not text[words:opened].strip() else opened


def _opened_think(text: str, left: int, first: Anchor) -> int | None:
    """Return where the `<think>` in front of a turn's first text starts; None if that is no reasoning.

    A content that is cut at its `</think>` is one text, which begins with reasoning.
    """
    reasons = first.kind == REASONING or (first.kind == CONTENT and CLOSING in text[first.start : first.end])
    return find_opened_think(text, left, first.start) if reasons else None


def behind_words(text: str, number: int, left: int, right: int, prompt: Callable[[int], str | None]) -> int | None:
    """Return where text[:right] has all words of what inference feeds before a turn behind it, whatever white space is
    between them; None if it does not begin with them, or `left` is behind them.
    """
    try:
        fed = prompt(number)
    except RecordError:
        return None
    end = None if fed is None else _end_of_words(text, fed)
    return end if end is not None and left <= end <= right else None


def behind_prompt(
    text: str,
    left: int,
    own: Sequence[Anchor],
    number: int,
    prompt: Callable[[int], str | None],
    *shorter: Callable[[str], str],
) -> int | None:
    """Return where a turn begins behind what inference feeds, where the text begins with this; else None.

    Args:
        left: where the text before the turn ends.
        own: the turn's anchors.
        prompt: gives what inference feeds before a turn, by its number; None where the text is known not to begin so.
        shorter: take parts off a prompt; the text may begin with what is left.
    """
    try:
        fed = prompt(number)
    except RecordError:
        return None
    if fed is None:
        return None
    for known in (fed, *(change(fed) for change in shorter)):
        if text.startswith(known) and left <= len(known) <= own[-1].start + (own[0].kind != CALL) * len(text):
            return len(known)
    return None


def is_bare(messages: Sequence[Mapping[str, Any]], tags: Collection[str]) -> bool:
    """Return whether messages are nothing but texts and calls, in which there is nothing that templates look for.

    Where there is reasoning, templates rewrite history, and words like `/no_think` change the generation prompt.

    Args:
        tags: what the template writes around reasoning.
    """
    wanted = re.compile("|".join([SWITCH, *map(re.escape, tags)]))
    return all(
        one.keys() <= BARE_KEYS.get(one["role"], {"role", "content"})
        and not wanted.search(one.get("content") or "")
        and not wanted.search(all_texts(one.get("tool_calls")))
        for one in messages
    )


def prompts_asked_once(
    text: str, prompt: Callable[[int], str], lefts: Mapping[int, int], contexts: Mapping[int, Hashable]
) -> Callable[[int], str | None]:
    """Return what gives the prompts of a conversation's turns, and renders one for all turns in the same context.

    A prompt is a rendering of all that is in front of the turn, so asking for each takes quadratic time. Where the
    first one in a context is the text in front of the turn and some words, the others are taken to end with the same
    words; where it is not, no other is taken to begin as the text does.

    Args:
        lefts: where the text before a turn ends, by the turn's number.
        contexts: whatever the prompt of a turn may depend on besides the texts, by the turn's number.
    """
    tails: dict[Hashable, str | None] = {}

    def fed(number: int) -> str | None:
        left, context = lefts[number], contexts[number]
        if context not in tails:
            asked = prompt(number)
            tails[context] = asked[left:] if asked.startswith(text[:left]) else None
            return asked
        tail = tails[context]
        return None if tail is None else text[:left] + tail

    return fed


def after_prompt(
    text: str, number: int, left: int, first: int, said: int, shown: GenerationPrompt, prompt: Callable[[int], str]
) -> int:
    """Return where a turn without a header that is known begins: behind what inference feeds before it.

    The text may have other white space in it. White space behind it is the template's, up to the turn's own text, where
    the prompt ends with white space too; else the model generates it. In "Q:  hi  A:   yes" with the prompt "Q: hi A:"
    the turn begins at 10, with "Q: hi A: " at 13. Where history has another text in front, such as a system prompt that
    prompts have in the last question, the turn begins behind the words that prompts end with, if they are there once.

    Args:
        left: where the text before the turn ends.
        first: where its own first text starts.
        said: the same with the white space that is the turn's own.
        shown: what the template writes in front of answers.

    Raises:
        RecordError: `turn_start_unknown`, the text has no such words there; `template_error`, the template refuses to
            write what inference feeds.
    """
    fed = prompt(number)
    if text.startswith(fed) and left <= len(fed) <= first:
        return len(fed)
    end = _end_of_words(text, fed)
    if end is None or not left <= end <= first:
        ends = [found.end() for found in _spaced(shown.tail).finditer(text, left, first)]
        end = ends[0] if len(ends) == 1 else None
    if end is not None:
        next_word = WORDS.search(text, end)
        return min(next_word.start(), max(said, end)) if next_word and fed[-1:].isspace() else end
    if shown.header:
        detail = (
            f"turn {number} does not begin with the generation prompt {shown.header[-40:]!r}, "
            f"but {text[left:first][-60:]!r} stands in front of it: the template writes its history otherwise than its "
            "prompts; give one that does not with --template"
        )
    else:
        detail = (
            f"turn {number} does not begin where inference would: its prompt is not in the text; "
            "give a template whose history begins with its prompts with --template"
        )
    raise RecordError("turn_start_unknown", detail)


@cache
def _spaced(words: str) -> re.Pattern[str]:
    """Return a pattern that matches words with any white space in them; nothing if there are none."""
    return re.compile(r"\s*".join(map(re.escape, "".join(words.split()))) or r"(?!)")


def _end_of_words(text: str, words: str) -> int | None:
    """Return where a text has all of `words` behind it, white space aside; None if it does not begin with them."""
    wanted = "".join(words.split())
    missing = len(wanted)
    for piece in WORDS.finditer(text):
        begun = len(wanted) - missing
        if not wanted.startswith(piece[0][:missing], begun):
            return None
        if len(piece[0]) >= missing:
            return piece.start() + missing
        missing -= len(piece[0])
    return None
