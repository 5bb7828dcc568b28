"""The contenders beside each other: each in turn, several rounds, each round in another order."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.child import NotRunError
from benchmarks.throughput.contenders import CONTENDERS, FLOOR, REFERENCE
from benchmarks.throughput.measure import Agreement, Measured

HEAD = [
    "contender",
    "M tokens/s (range)",
    "MB/s",
    "ratio",
    "times floor",
    "steady state, M tokens/s",
    "ratio",
    "times floor",
    "peak MB",
    "ids and masks",
]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A part of the corpus."""

    conversations: int
    tokens: int
    bytes: int
    """UTF-8 bytes of rendered text."""


@dataclass(kw_only=True)
class Row:
    """What the rounds gave for one contender."""

    name: str
    size: Size
    runs: list[Measured] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    """CPU seconds that the corpus takes beyond its quarter, round by round; empty for slow contenders."""
    error: str | None = None

    @property
    def speed(self) -> float:
        """Millions of tokens per second of CPU time: the median."""
        return self.size.tokens / statistics.median(one.cpu for one in self.runs) / 1e6

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest round."""
        seconds = [one.cpu for one in self.runs]
        return self.size.tokens / max(seconds) / 1e6, self.size.tokens / min(seconds) / 1e6


def contest(bench: Bench, names: list[str]) -> list[dict[str, Any]]:
    """Run the contenders and print their table; the same as JSON has it."""
    reference = bench.corpus.folder / "reference.npz"
    try:
        bench.run(REFERENCE, part=bench.corpus.part("corpus"), keep=reference)
    except NotRunError as error:
        raise SystemExit(f"{REFERENCE}: {error}") from None
    sizes = {part: size_of(bench.corpus.part(part), reference) for part in ("corpus", "quarter")}
    rows = {name: Row(name=name, size=sizes["quarter" if CONTENDERS[name].slow else "corpus"]) for name in names}
    for turn in range(bench.rounds):
        shift = turn * (1 + len(names) // bench.rounds) % len(names)
        for name in names[shift:] + names[:shift]:
            if rows[name].error is None:
                one_round(bench, rows[name], reference, turn)
    beyond = sizes["corpus"].tokens - sizes["quarter"].tokens
    print_table(HEAD, cells(list(rows.values()), beyond))
    return [asdict(row) for row in rows.values()]


def one_round(bench: Bench, row: Row, reference: Path, turn: int) -> None:
    """Run a contender once, and a fast one over the quarter as well."""
    slow = CONTENDERS[row.name].slow
    quarter = bench.corpus.part("quarter")
    try:
        part = quarter if slow else bench.corpus.part("corpus")
        found = Measured.of(bench.run(row.name, part=part, reference=reference))
        if not slow:
            row.beyond.append(found.cpu - Measured.of(bench.run(row.name, part=quarter)).cpu)
        row.runs.append(found)
        said = f"{found.cpu:.2f} s of CPU, {found.wall:.2f} s on the clock"
    except NotRunError as error:
        row.error = said = str(error)
    print(f"round {turn + 1}: {row.name}: {said}", file=sys.stderr)


def size_of(part: Path, reference: Path) -> Size:
    """Conversations, tokens and bytes of a part of the corpus."""
    with open(part / "text.jsonl", encoding="utf-8") as file:
        sizes = [len(json.loads(line)["text"].encode()) for line in file]
    with np.load(reference) as kept:
        tokens = int(kept["lengths"][: len(sizes)].sum())
    return Size(conversations=len(sizes), tokens=tokens, bytes=sum(sizes))


def cells(rows: list[Row], beyond: int) -> list[list[str]]:
    """The table's cells. `beyond` is the tokens of the corpus without its quarter."""
    done = {row.name: row for row in rows if row.error is None}
    base = done[REFERENCE].speed if REFERENCE in done else None
    floor = done.get(FLOOR)

    def steady(row: Row | None) -> float | None:
        seconds = statistics.median(row.beyond) if row is not None and row.beyond else 0.0
        return beyond / seconds / 1e6 if seconds > 0 else None  # a corpus of a few records is lost in the noise

    table = []
    for row in rows:
        title = CONTENDERS[row.name].title
        if row.error is not None:
            table.append([title, f"not run: {row.error}", *[""] * (len(HEAD) - 2)])
            continue
        low, high = row.spread
        rate = steady(row)
        last = steady(floor)
        agreement = row.runs[0].agreement
        assert agreement is not None
        table.append(
            [
                title,
                f"{row.speed:.2f} ({low:.2f}–{high:.2f})",
                f"{row.speed * row.size.bytes / row.size.tokens:.1f}",
                f"{row.speed / base:.1f}" if base else "",
                f"{floor.speed / row.speed:.1f}" if floor else "",
                f"{rate:.2f}" if rate else "",
                f"{rate / base:.1f}" if rate and base else "",
                f"{last / rate:.1f}" if rate and last else "",
                f"{max(one.peak for one in row.runs):,.0f}",
                correct(agreement, row.size.conversations),
            ]
        )
    return table


def correct(found: Agreement, expected: int) -> str:
    """What a row says of a contender's ids and masks."""
    words = []
    if found.sequences != expected:
        words.append(f"{found.sequences:,} of {expected:,} sequences")
    wrong = expected - found.ids_equal
    words.append("ids equal" if not wrong else f"IDS DIFFER in {wrong:,} of {expected:,}")
    if found.longer:
        words[-1] += f" (in {found.longer:,} by tokens added at the end)"
    if found.masks_equal is None:
        words.append("no mask")
    else:
        wrong = expected - found.masks_equal
        words.append("masks equal" if not wrong else f"MASKS DIFFER in {wrong:,} of {expected:,}")
    return ", ".join(words)
