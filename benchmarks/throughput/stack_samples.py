"""Samples of our command's stack as it runs, each counted for a stage by the files in it."""

from __future__ import annotations

import signal
import time
import types
from collections import Counter
from pathlib import Path

from benchmarks.throughput.contenders.contender import Contender
from benchmarks.throughput.measure import timed

INTERVAL = 0.001
"""Seconds of CPU time between samples. A sample weighs the CPU time since the one before, so that a long call into C
counts in full."""
TASK = "preprocess/tasks/task.py"
OUTSIDE = "outside of the tasks: start, plan, finalize"
WHOLE = {
    "preprocess/pipeline/verification.py": "check of a sample against the reference path",
    "preprocess/pipeline/reference.py": "reference path",
}
"""Files that count with all that they call."""
STAGES = {
    "preprocess/sources/": "read",
    "formats/records/": "read",
    "preprocess/pipeline/read.py": "read",
    "formats/templates/": "render",
    "formats/conversation.py": "render",
    "preprocess/pipeline/render.py": "render",
    "preprocess/pipeline/layout_skeletons.py": "render",
    "preprocess/pipeline/reference_rendering.py": "render",
    "preprocess/pipeline/rendered_texts.py": "render",
    "preprocess/pipeline/skeleton_table.py": "render",
    "preprocess/pipeline/string_search.py": "render",
    "preprocess/pipeline/whitespace.py": "render",
    "preprocess/pipeline/masks.py": "mask",
    "preprocess/tokenizer/byte_lengths.py": "mask",
    "preprocess/pipeline/tokenize.py": "tokenize",
    "preprocess/tokenizer/": "tokenize",
    "preprocess/pipeline/truncation.py": "truncate",
    "preprocess/tasks/": "write",
    "formats/shards/": "write",
}
"""By the beginning of a file's path below the root. A file that is not here counts for the one that called it."""


def sampled(contender: Contender, one: Path, corpus: Path, scratch: Path) -> dict[str, float]:
    """CPU seconds by stage of a run over the corpus, after one over a record."""
    seconds: Counter[str] = Counter()
    last = time.process_time()

    def sample(_signal: int, frame: types.FrameType | None) -> None:
        nonlocal last
        now = time.process_time()
        seconds[stage(frame)] += now - last
        last = now

    timed(contender, one, scratch / "imports")
    signal.signal(signal.SIGPROF, sample)
    last = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    timed(contender, corpus, scratch / "all")
    signal.setitimer(signal.ITIMER_PROF, 0)
    return dict(seconds)


def stage(frame: types.FrameType | None) -> str:
    """The stage that a stack belongs to."""
    files = []  # of ours, from the innermost frame outwards
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("sft_shards."):
            files.append(module.removeprefix("sft_shards.").replace(".", "/") + ".py")
        frame = frame.f_back
    if TASK not in files:
        return OUTSIDE
    for file in files:
        if file in WHOLE:
            return WHOLE[file]
    return next(name for file in files for start, name in STAGES.items() if file.startswith(start))
