"""Texts of other people made fit for a terminal: what a terminal would obey is shown as an escape.

Records, names of files, manifests and the errors that quote them may hold escape sequences, which set the clipboard
(OSC 52), rename the window, clear the screen or colour a line; carriage returns, which overwrite one; newlines, which
forge one; and bidirectional controls, which show a line in another order than it has. Everything that either command
prints for people goes through `printable`. JSON output does not need it: there these characters are data.
"""

from __future__ import annotations

import re

BODY = "│ "
"""Stands before each line of a text of several lines, so that none can be taken for a line of ours."""
_OBEYED = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # halves of surrogate pairs, which no encoding has
)
_IN_A_LINE = re.compile(f"[{_OBEYED}]")
_IN_A_BODY = re.compile(f"(?![\n\t])[{_OBEYED}]")
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: object) -> str:
    r"""Return a text as one line in which every character is shown and none is obeyed.

    >>> print(printable("a\x1b]52;c;QQ==\x07b\nc\u202ed"))
    a\x1b]52;c;QQ==\x07b\nc\u202ed
    """
    return _IN_A_LINE.sub(_escape, str(text))


def printable_body(text: str) -> str:
    r"""Return a text of several lines, each behind `BODY`; newlines and tabs are kept, all else is as in `printable`.

    >>> print(printable_body("one\ntwo\x9b2J"))
    │ one
    │ two\x9b2J
    """
    return "\n".join(BODY + line for line in _IN_A_BODY.sub(_escape, text).split("\n"))


def printable_part(text: str) -> str:
    """Return a piece of such a text, before pieces are joined and coloured: as `printable_body`, without `BODY`."""
    return _IN_A_BODY.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _ESCAPES.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")
