"""Texts of other people made fit for a terminal: what a terminal would obey is shown as an escape.

    say(f"{directory}: nothing wrong")                  # a line; the name of the directory cannot forge another
    say(f"sft-preprocess: {error}", err=True)

Records, names of files, manifests and the errors that quote them may hold escape sequences, which set the clipboard
(OSC 52), rename the window, clear the screen or colour a line; carriage returns, which overwrite one; newlines, which
forge one; and bidirectional controls, which show a line in another order than it has. Everything that either command
prints for people goes through here. JSON output does not need it: there these characters are data.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import IO

BODY = "│ "
"""Stands before each line of a text that is shown between lines of ours."""
UNLIMITED = 1000
"""Columns of what is no terminal."""
USUAL = 80
"""Columns of a terminal that does not say how many it has."""
_OBEYED = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # halves of surrogate pairs, which no encoding has
)
_IN_A_LINE = re.compile(f"[{_OBEYED}]")
_IN_A_TEXT = re.compile(f"(?![\n\t])[{_OBEYED}]")
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: object) -> str:
    r"""Return a text as one line in which every character is shown and none is obeyed.

    >>> print(printable("a\x1b]52;c;QQ==\x07b\nc\u202ed"))
    a\x1b]52;c;QQ==\x07b\nc\u202ed
    """
    return _IN_A_LINE.sub(_escape, str(text))


def say(line: object, *, err: bool = False) -> None:
    """Print a line for people, on standard output or on standard error."""
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


def status(line: object) -> None:
    """Say on a terminal what takes a moment now; nothing where standard error is no terminal."""
    if sys.stderr.isatty():
        say(line, err=True)


def coloured(stream: IO[str]) -> bool:
    """Return whether what is printed there may have colours: it is a terminal, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def width_of(stream: IO[str]) -> int:
    """Return the columns of the terminal that a stream is; `UNLIMITED` where it is none, and nobody folds its lines."""
    if not stream.isatty():
        return UNLIMITED
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or USUAL
    return USUAL


def printable_text(text: str) -> str:
    """Return a text of several lines: newlines and tabs are kept, all else is as in `printable`.

    Only for what is known to be a text and stands last: its lines may look like any other.
    """
    return _IN_A_TEXT.sub(_escape, text)


def quoted(text: str) -> str:
    r"""Return a text of several lines, each behind `BODY`, so that none can be taken for a line of ours.

    >>> print(quoted("one\ntwo"))
    │ one
    │ two
    """
    return "\n".join(BODY + line for line in text.split("\n"))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _ESCAPES.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")
