"""Think blocks: `<think> … </think>`, which templates cut at, move, and write without anything in them.

An empty block is the template's doing, whether it stands in the turn or the header opens it: the model does not learn
to write it. White space behind it is the turn's own, but for the empty line that templates write there. An answer that
begins with newlines keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

OPENING = "<think>"
TAGS = re.compile(r"(</?think>)")
EMPTY_BLOCK = re.compile(r"(\s*<think>\s*</think>)\n{0,2}")
REST_OF_EMPTY_BLOCK = re.compile(r"(\s*</think>)\n{0,2}")
CLOSING = "</think>"
OPENER_AT_END = re.compile(
    r"(?:<think>|<seed:think>|<\|channel>thought|<\|START_THINKING\|>|<\|channel\|>analysis<\|message\|>|<\|think\|>)"
    r"\s*(?:</think>|</seed:think>|<channel\|>|<\|END_THINKING\|>)?\s*\Z"
)
"""What a generation prompt ends with that opens reasoning, or writes an empty block of it."""
SPACE = re.compile(r"\s*")


def after_empty_think(text: str, start: int, own: int | None = None, *, opened: bool = False) -> int:
    """Return where a turn's own words begin: behind empty think blocks, of which the header may hold the first half.

    In "assistant: <think></think>\\nHello" with the header's end at 11 that is 27. Where the answer is "\\nHello", so
    that its own text starts at 26, it is 26.

    Args:
        text: the rendering.
        start: where the turn's header ends.
        own: where the turn's first text starts, with the white space that the template keeps (default: anywhere).
        opened: whether the first half of a block may be missing, since the generation prompt has it.
    """
    while found := _empty_block(text, start, opened):
        opened = False
        start = found.end() if own is None or own < found.end(1) else min(own, found.end())
    return start


def is_empty_think(text: str, start: int, end: int) -> bool:
    """Return whether text[start:end] is empty think blocks, or what the header leaves of one."""
    while found := _empty_block(text, start):
        if found.end(1) <= end <= found.end():
            return True
        start = found.end(1)
    return False


def _empty_block(text: str, start: int, opened: bool = False) -> re.Match[str] | None:
    if opened or find_opened_think(text, 0, start) is not None:
        return REST_OF_EMPTY_BLOCK.match(text, start) or EMPTY_BLOCK.match(text, start)
    return EMPTY_BLOCK.match(text, start)


def think_blocks(text: str, opening: str = OPENING, closing: str = CLOSING) -> Iterator[tuple[int, int]]:
    """Yield the spans [start, end) of whole think blocks, each with the white space behind it.

    In "<think>a<think>b</think> c" the span is [0, 25). Each character is looked at once, however many tags there are.
    """
    start = text.find(opening)
    while start >= 0 and (end := text.find(closing, start)) >= 0:
        space = SPACE.match(text, end + len(closing))
        assert space is not None, "white space may be empty"
        yield start, space.end()
        start = text.find(opening, space.end())


def inlined_reasoning(content: str) -> bool:
    """Return whether a content holds reasoning: words in front of a `</think>`, with or without the opening tag.

    >>> inlined_reasoning("<think>two and two</think>four"), inlined_reasoning("<think>\\n</think>four")
    (True, False)
    """
    before, closing, _ = content.partition(CLOSING)
    return bool(closing) and bool(before.replace(OPENING, "").strip())


def find_opened_think(text: str, begin: int, end: int) -> int | None:
    """Return where in text[begin:end] a `<think>` starts with nothing but white space behind it, or None."""
    while end > begin and text[end - 1].isspace():
        end -= 1
    return end - len(OPENING) if text.endswith(OPENING, begin, end) else None


def without_think_opener(header: str) -> str:
    """Return a generation prompt without the opener of reasoning at its end.

    >>> without_think_opener("<|assistant|>\\n<think>\\n")
    '<|assistant|>\\n'
    """
    found = OPENER_AT_END.search(header)
    return header[: found.start()] if found else header
