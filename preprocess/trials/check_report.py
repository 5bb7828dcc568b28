"""What `check` prints: a table of the files, then for files of one form their columns and roles, and what is wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import click

from sft_shards.formats.terminal import UNLIMITED, printable
from sft_shards.preprocess.directories.tables import Column, folded, table
from sft_shards.preprocess.tasks.losses import shortened
from sft_shards.preprocess.trials.check import FileCheck, Refusal

MANY = 12
"""Columns that are named at most."""
COLUMNS = (
    Column(title="file", gives_way=True),
    Column(title="kind"),
    Column(title="records", right=True),
    Column(title="format"),
    Column(title="fits", right=True),
    Column(title="refused", right=True),
    Column(title=""),
)


def lines(files: Sequence[FileCheck], *, colour: bool, width: int = UNLIMITED) -> Iterator[str]:
    """Give what was found in lines for people.

    Args:
        width: columns of the terminal.
    """
    head, *rows = table(COLUMNS, [_row(file) for file in files], width=width)
    yield click.style(head, bold=True) if colour else head
    for file, row in zip(files, rows, strict=True):
        yield row if file.is_fine or not colour else click.style(row, fg="red" if not file.format else "yellow")
    for line in _details(files):
        yield from folded(printable(line), width)


def _row(file: FileCheck) -> tuple[str, ...]:
    kind = f"{file.kind} {file.compression}".strip() or "?"
    records = f"{file.records:,}" + ("" if file.complete or file.kind == "parquet" else "+")
    fits = f"{file.fitting / file.looked_at:.0%}" if file.format and file.looked_at else ""
    refused = f"{file.looked_at - file.usable:,}" if file.format else ""
    mark = "" if file.is_fine else "!"
    return file.path, kind, records if file.kind else "", file.format or "-", fits, refused, mark


def _details(files: Sequence[FileCheck]) -> Iterator[str]:
    """Give the lines below the table; files of one form are described together."""
    groups: dict[tuple[object, ...], list[FileCheck]] = {}
    for file in files:
        if file.format:
            groups.setdefault((file.format, file.columns, tuple(sorted(file.roles)), file.flags), []).append(file)
    for group in groups.values():
        yield from _group(group)
    for file in files:
        if not file.format:
            yield f"{file.path}: cannot be used: {file.problem}"
            yield from _refusals([file])


def _group(group: Sequence[FileCheck]) -> Iterator[str]:
    first = group[0]
    more = f" and {len(group) - 1} more like it" if len(group) > 1 else ""
    yield f"{first.path}{more}: {first.format}"
    if first.columns:
        rest = f" and {len(first.columns) - MANY} more" if len(first.columns) > MANY else ""
        yield f"  columns: {', '.join(first.columns[:MANY])}{rest}"
    roles = {role: sum(file.roles[role] for file in group) for role in first.roles}
    if roles:
        yield f"  turns: {', '.join(f'{count:,} {role}' for role, count in roles.items())}"
    if first.unread:
        yield f"  keys of messages that are not read: {', '.join(first.unread)}"
    if first.problem:
        yield f"  without flags: {first.problem}"
    if first.flags:
        yield f"  give: {shlex.join(first.flags)}"
    yield from _refusals(group)


def _refusals(group: Sequence[FileCheck]) -> Iterator[str]:
    """Give what would be left out of some files, by reason, with the first record as an example."""
    found: dict[str, list[tuple[FileCheck, Refusal]]] = {}
    for file in group:
        for one in file.refused:
            found.setdefault(one.reason, []).append((file, one))
    looked_at = sum(file.looked_at for file in group)
    for reason, cases in found.items():
        records = sum(one.records for _, one in cases)
        places = f" in {len(cases)} files" if len(cases) > 1 else ""
        yield f"  would be left out: {records:,} of {looked_at:,} {reason}{places}"
        file, one = cases[0]
        where = f" of {file.path}" if len(group) > 1 else ""
        remedy = f"; {one.remedy}" if one.remedy and "--" not in one.detail else ""
        yield f"    record {one.first}{where}: {shortened(one.detail)}{remedy}"
