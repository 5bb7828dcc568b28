"""Where the time of our command goes, by stage."""

from __future__ import annotations

import statistics
import sys

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.child import NotRunError


def stages(bench: Bench) -> dict[str, float]:
    """Sample our command, several rounds, and print the median of each stage."""
    try:
        found = [bench.run("ours", part=bench.corpus.part("corpus"), stages=True) for _ in range(bench.rounds)]
    except NotRunError as error:
        sys.exit(str(error))
    seconds = {
        name: statistics.median(one.get(name, 0.0) for one in found) for name in {name for one in found for name in one}
    }
    total = sum(seconds.values())
    rows = sorted(seconds.items(), key=lambda pair: -pair[1])
    shown = [[name, f"{value:.2f}", f"{value / total:.0%}"] for name, value in rows if value >= total / 500]
    print_table(["stage", "seconds of CPU", "share"], shown)
    return seconds
