"""CPU time, memory and comparison: what a process that runs one contender measures of itself."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.throughput.contenders.contender import Contender, Sequences


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How what a contender made agrees with the reference, in sequences."""

    sequences: int
    ids_equal: int
    longer: int
    """Those that have the reference's ids with more behind them."""
    shorter: int
    """Those that have the reference's ids but for some at the end."""
    masks_equal: int | None
    """None where a contender makes no mask."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a contender; seconds and megabytes (2^20 bytes)."""

    cpu: float
    """CPU seconds of the corpus, less what one record takes."""
    start: float
    """CPU seconds of one record."""
    wall: float
    peak: float
    """The most that the process, or the largest of its children, held."""
    tokens: int
    agreement: Agreement | None = None

    @classmethod
    def of(cls, values: dict[str, object]) -> Measured:
        """From the JSON that a child prints."""
        found = values.get("agreement")
        agreement = Agreement(**found) if isinstance(found, dict) else None  # type: ignore[arg-type]
        return cls(**{**values, "agreement": agreement})  # type: ignore[arg-type]


def cpu_seconds() -> float:
    """CPU seconds, user and system, of this process and its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def peak_megabytes() -> float:
    """The most memory that this process, or the largest of its children, held."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def one_core() -> None:
    """Keep to one core: the last of those that this process may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def timed(contender: Contender, source: Path, target: Path) -> tuple[float, float]:
    """CPU and wall seconds of a contender's work."""
    target.mkdir(parents=True)
    contender.prepare(source, target)
    cpu, wall = cpu_seconds(), time.perf_counter()
    contender.work(source, target)
    return cpu_seconds() - cpu, time.perf_counter() - wall


def measure(
    contender: Contender, one: Path, corpus: Path, scratch: Path, *, reference: Path | None, keep: Path | None
) -> dict[str, object]:
    """Run over one record twice, over the corpus, and over one record again; a `Measured` as JSON has it.

    `keep` is a file to write the sequences to; `reference` one that was written so, to compare with.
    """
    timed(contender, one, scratch / "imports")
    before = timed(contender, one, scratch / "before")[0]
    cpu, wall = timed(contender, corpus, scratch / "all")
    peak = peak_megabytes()
    overhead = (before + timed(contender, one, scratch / "after")[0]) / 2
    made = contender.read(scratch / "all")
    if keep is not None:
        mask = np.zeros_like(made.ids) if made.mask is None else made.mask
        np.savez(keep, lengths=made.lengths, ids=made.ids, mask=mask)
    agreement = compare(made, reference) if reference is not None else None
    found = Measured(
        cpu=cpu - overhead, start=overhead, wall=wall, peak=peak, tokens=int(made.lengths.sum()), agreement=agreement
    )
    return asdict(found)


def compare(made: Sequences, path: Path) -> Agreement:
    """Compare sequence by sequence with those that were kept; a contender may have seen the first of them only."""
    with np.load(path) as kept:
        lengths, ids, mask = kept["lengths"], kept["ids"], kept["mask"]
    theirs, own = np.cumsum(lengths) - lengths, np.cumsum(made.lengths) - made.lengths
    equal = longer = shorter = masks = 0
    for row in range(min(len(lengths), len(made.lengths))):
        a = slice(theirs[row], theirs[row] + lengths[row])
        b = slice(own[row], own[row] + made.lengths[row])
        equal += bool(np.array_equal(ids[a], made.ids[b]))
        longer += lengths[row] < made.lengths[row] and bool(np.array_equal(ids[a], made.ids[b][: lengths[row]]))
        shorter += lengths[row] > made.lengths[row] and bool(np.array_equal(ids[a][: made.lengths[row]], made.ids[b]))
        masks += made.mask is not None and bool(np.array_equal(mask[a], made.mask[b]))
    return Agreement(
        sequences=len(made.lengths),
        ids_equal=equal,
        longer=int(longer),
        shorter=int(shorter),
        masks_equal=None if made.mask is None else int(masks),
    )
