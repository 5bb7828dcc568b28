"""Our command with one and several processes, on the clock, over a corpus and over one several times as long."""

from __future__ import annotations

import os
import statistics
import sys
from typing import Any

from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.command import HERE

PIECES = 8
"""Files that the corpus is cut into."""
TIMES = 6
"""How often the long files hold the corpus: what a job takes once is told from the rate at which it goes on."""
PROCESSES = (1, 2)


def scaling(bench: Bench) -> list[dict[str, Any]]:
    """Run the command with as many cores as processes, and print seconds and speed-up."""
    lines = (bench.corpus.part("corpus") / "messages.jsonl").read_text("utf-8").splitlines(keepends=True)
    folders = {1: bench.corpus.folder / "once", TIMES: bench.corpus.folder / "often"}
    for copies, folder in folders.items():
        folder.mkdir()
        for number in range(PIECES):
            (folder / f"{number}.jsonl").write_text("".join(lines[number::PIECES]) * copies, "utf-8")
    cores = sorted(os.sched_getaffinity(0))
    seconds: dict[int, dict[int, list[float]]] = {count: {copies: [] for copies in folders} for count in PROCESSES}
    tokens: dict[int, int] = {}
    for turn in range(bench.rounds):
        for count in PROCESSES[:: 1 if turn % 2 == 0 else -1]:
            for copies, folder in folders.items():
                output = bench.corpus.folder / "scaled"
                found = HERE.run(
                    folder, output, tokenizer=bench.corpus.tokenizer, workers=count, cores=set(cores[:count])
                )
                seconds[count][copies].append(found.wall)
                tokens[copies] = found.tokens
            print(f"round {turn + 1}: {count} processes: {seconds[count][TIMES][-1]:.2f} s", file=sys.stderr)
    rows = []
    for count in PROCESSES:
        once, often = (statistics.median(seconds[count][copies]) for copies in folders)
        beyond = statistics.median(b - a for a, b in zip(*seconds[count].values(), strict=True))
        speed = (tokens[TIMES] - tokens[1]) / beyond / 1e6 if beyond > 0 else None
        rows.append({"processes": count, "once": once, "often": often, "m_tokens_per_s": speed})
    base = rows[0]["m_tokens_per_s"]
    head = ["processes", "seconds, once", f"seconds, {TIMES} times", "M tokens/s beyond once", "speed-up"]
    shown = []
    for row in rows:
        speed = row["m_tokens_per_s"]
        last = [f"{speed:.2f}" if speed else "", f"{speed / base:.2f}" if speed and base else ""]
        shown.append([str(row["processes"]), f"{row['once']:.1f}", f"{row['often']:.1f}", *last])
    print_table(head, shown)
    return rows
