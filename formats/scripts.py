"""Values in the scripts that we write: shells, batch scripts, commands of pods.

A script is read by lines, and its comments and `#SBATCH` lines end where a line does: a newline in a value would begin
a line of its own, whatever quotes stand around it. No option, file or folder needs a control character, so a value that
holds one is refused. Everything else is quoted where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sft_shards.formats.errors import UsageError
from sft_shards.formats.terminal import printable

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, ends of lines, and bytes of a name that are not UTF-8."""


def checked(value: object, where: str) -> str:
    """Return a value as text, to be quoted and written into a script.

    Args:
        where: the option, or what else the value is, for the message.

    Raises:
        UsageError: it holds a control character, or is not UTF-8.
    """
    text = str(value)
    if found := _UNFIT.search(text):
        raise UsageError(
            f"{where}: {printable(text)[:200]} holds the character {printable(found[0])}, which no script may hold; "
            "choose another name or value"
        )
    return text


def all_checked(values: Iterable[object], where: str) -> list[str]:
    """Return values as `checked` does each. Raises what it raises."""
    return [checked(value, where) for value in values]


def checked_lines(text: str, where: str) -> str:
    """Return shell lines that the user wrote as such; newlines and tabs are theirs. Raises what `checked` raises."""
    checked(text.replace("\n", " ").replace("\t", " "), where)
    return text


def comment(text: object) -> str:
    """Return a comment of one line; what would end or colour it is shown as an escape."""
    return f"# {printable(text)}"
