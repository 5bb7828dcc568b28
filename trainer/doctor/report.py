"""The doctor's report, one line for each finding: as text for people, as JSON for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from sft_shards.formats.terminal import printable

Status = Literal["ok", "warning", "failing"]
COLOURS = {"ok": "green", "warning": "yellow", "failing": "red"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    name: str
    """What was examined; the same on every machine."""
    status: Status
    """`failing`: training cannot work; `warning`: it works with a restriction or more slowly."""
    found: str
    """What was found, in one line."""
    remedy: str = ""
    """What to do, in one line; "" with `ok`."""


def ok(name: str, found: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(name=name, status="ok", found=found)


def warning(name: str, found: str, remedy: str) -> Finding:
    """Return a finding with which training works, with a restriction or more slowly."""
    return Finding(name=name, status="warning", found=found, remedy=remedy)


def failing(name: str, found: str, remedy: str) -> Finding:
    """Return a finding with which training cannot work."""
    return Finding(name=name, status="failing", found=found, remedy=remedy)


def can_train(findings: Sequence[Finding]) -> bool:
    """Return whether no finding is failing."""
    return all(finding.status != "failing" for finding in findings)


def as_json(findings: Sequence[Finding], *, device: str) -> dict[str, Any]:
    """Return the report as JSON values: `device`, `can_train`, and `findings` with the fields of `Finding`."""
    return {
        "device": device,
        "can_train": can_train(findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def as_text(findings: Sequence[Finding], *, device: str, colour: bool) -> str:
    """Return the report as aligned lines, each remedy below its finding, with a summary as the last line.

    Args:
        device: named in the last line.
        colour: write ANSI colours.
    """
    width = max((len(printable(finding.name)) for finding in findings), default=0)
    lines = []
    for finding in findings:
        status = click.style(f"{finding.status:<7}", fg=COLOURS[finding.status]) if colour else f"{finding.status:<7}"
        lines.append(f"{status}  {printable(finding.name):<{width}}  {printable(finding.found)}".rstrip())
        if finding.remedy:
            lines.append(f"{'':7}  {'':{width}}  → {printable(finding.remedy)}")
    counts = {status: sum(finding.status == status for finding in findings) for status in COLOURS}
    verdict = "can train" if can_train(findings) else "cannot train"
    lines.append(
        f"This machine {verdict} with --device {device}: "
        f"{counts['failing']} failing, {counts['warning']} warning(s), {counts['ok']} ok."
    )
    return "\n".join(lines)
