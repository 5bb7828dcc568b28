"""Our command here and in another checkout, say of the commit before: in turn, on one core, over the same corpus."""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.command import HERE, Checkout


def against(bench: Bench, other: Path) -> dict[str, Any]:
    """Print the rates of both and their ratio: above 1, this checkout is faster.

    A round runs both over the corpus and over its quarter, and the next round in the other order. The steady
    state is that of the three quarters beyond the first, so that what is done once in a process counts for nothing.
    """
    checkouts = {"here": HERE, "there": Checkout(folder=other.resolve())}
    core = {max(os.sched_getaffinity(0))}
    parts = {name: bench.corpus.part(name) / "messages.jsonl" for name in ("quarter", "corpus")}
    seconds: dict[str, dict[str, list[float]]] = {name: {part: [] for part in parts} for name in checkouts}
    tokens: dict[str, int] = {}
    digests: dict[str, set[str]] = {part: set() for part in parts}
    for turn in range(bench.rounds):
        for name in list(checkouts)[:: 1 if turn % 2 == 0 else -1]:
            for part, file in parts.items():
                output = bench.corpus.folder / f"against-{turn}-{name}-{part}"
                found = checkouts[name].run(file, output, tokenizer=bench.corpus.tokenizer, cores=core)
                seconds[name][part].append(found.cpu)
                tokens[part] = found.tokens
                digests[part].add(found.digest)
            print(f"round {turn + 1}: {name}: {seconds[name]['corpus'][-1]:.2f} s of CPU", file=sys.stderr)
    whole = {name: tokens["corpus"] / statistics.median(found["corpus"]) / 1e6 for name, found in seconds.items()}
    steady: dict[str, float | None] = {}
    for name, found in seconds.items():
        beyond = statistics.median(a - b for a, b in zip(found["corpus"], found["quarter"], strict=True))
        steady[name] = (tokens["corpus"] - tokens["quarter"]) / beyond / 1e6 if beyond > 0 else None
    rows = []
    for name, checkout in checkouts.items():
        shown = steady[name]
        rows.append([name, str(checkout.folder), f"{whole[name]:.2f}", f"{shown:.2f}" if shown else ""])
    here, there = steady["here"], steady["there"]
    ratios = {"whole": whole["here"] / whole["there"], "steady": here / there if here and there else None}
    last = f"{ratios['steady']:.2f}" if ratios["steady"] else ""
    rows.append(["ratio, here / there", "", f"{ratios['whole']:.2f}", last])
    print_table(["checkout", "folder", "whole command, M tokens/s", "steady state, M tokens/s"], rows)
    same = all(len(found) == 1 for found in digests.values())
    print(f"tokens and masks: {'the same bytes' if same else 'DIFFERENT BYTES'}")
    return {"seconds": seconds, "tokens": tokens, "ratios": ratios, "same": same}
