"""Tables for a terminal: what every command that prints one uses.

A library for this (rich) costs a start 70 ms, which is a tenth of a small job. A column of paths gives way where a
line would be longer than the terminal is wide: a path loses its beginning, since its end tells it from others.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from sft_shards.formats.terminal import UNLIMITED, printable

GAP = "  "
NARROWEST = 12
"""Characters that a column keeps that gives way."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    """Whether its cells end at the same place, as numbers do."""
    gives_way: bool = False
    """Whether its cells lose their beginnings where a line would be too long."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]], *, width: int = UNLIMITED) -> list[str]:
    """Lay out rows below the titles of their columns, and return the lines.

    Args:
        rows: a cell for each column; what a terminal would obey is shown as an escape.
        width: columns of the terminal.

    >>> print("\\n".join(table([Column(title="file"), Column(title="rows", right=True)], [("a.json", 5)])))
    file    rows
    a.json     5
    """
    cells = [[column.title for column in columns], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(columns_of(row[at]) for row in cells) for at in range(len(columns))]
    excess = sum(widths) + len(GAP) * (len(columns) - 1) - (width - 1)
    for at, column in enumerate(columns):
        if column.gives_way and excess > 0:
            narrow = max(min(NARROWEST, widths[at]), widths[at] - excess)
            excess -= widths[at] - narrow
            widths[at] = narrow
    lines = []
    for row in cells:
        placed = [
            _placed(shortened_path(cell, widths[at]) if column.gives_way else cell, widths[at], right=column.right)
            for at, (column, cell) in enumerate(zip(columns, row, strict=True))
        ]
        lines.append(GAP.join(placed).rstrip())
    return lines


def folded(line: str, width: int) -> list[str]:
    """Fold a line between words where the terminal is narrower; what follows is indented by two more.

    >>> folded("  remedy: name its column", 20)
    ['  remedy: name its', '    column']
    """
    if width >= UNLIMITED or columns_of(line) < width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width - 1, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def columns_of(text: str) -> int:
    """Return the columns that a text takes on a terminal, on which some characters are two wide.

    >>> columns_of("ab"), columns_of("数据")
    (2, 4)
    """
    return sum(_wide(character) for character in text)


def shortened_path(path: str, width: int) -> str:
    """Return a path in at most so many columns, without its beginning where it is too long.

    >>> shortened_path("data/alpaca/train.json", 12)
    '…/train.json'
    """
    if columns_of(path) <= width:
        return path
    kept, used = "", 1
    for character in reversed(path):
        used += _wide(character)
        if used > width:
            break
        kept = character + kept
    return "…" + kept


def _wide(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _placed(cell: str, width: int, *, right: bool) -> str:
    space = " " * max(width - columns_of(cell), 0)
    return space + cell if right else cell + space
