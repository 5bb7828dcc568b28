"""What runs in a contender's process, perhaps with another Python: `start` here, `main` there.

    python -m benchmarks.throughput.child '{"contender": "ours", …}'

The last line that it prints is the result, as JSON, behind a mark: some contenders print.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARK = "BENCHMARK-RESULT "
QUIET = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
"""Environment of everything that is measured: one thread, and no look at the network."""


class NotRunError(Exception):
    """A contender could not be run; its text is why."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a child is told; paths are texts, because it travels as JSON."""

    contender: str
    scratch: str
    one: str
    corpus: str
    settings: dict[str, Any]
    """Fields of `Settings`."""
    reference: str | None = None
    keep: str | None = None
    stages: bool = False
    """Sample the run instead of comparing what it made."""


def start(order: Order, program: str) -> dict[str, Any]:
    """Run a child with a Python; its result. NotRunError with its last words if it gives none."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **QUIET, "HF_HOME": str(Path(order.scratch) / "home"), "PYTHONPATH": path}
    done = subprocess.run(
        [program, "-m", "benchmarks.throughput.child", json.dumps(asdict(order))],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    shutil.rmtree(order.scratch, ignore_errors=True)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    raise NotRunError((done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:160])


def main() -> None:
    """Run one contender on one core, and print what was found."""
    from benchmarks.throughput import measure, stack_samples
    from benchmarks.throughput.contenders import CONTENDERS
    from benchmarks.throughput.contenders.contender import Settings

    order = Order(**json.loads(sys.argv[1]))
    measure.one_core()
    contender = CONTENDERS[order.contender].load(Settings(**order.settings))
    one, corpus, scratch = Path(order.one), Path(order.corpus), Path(order.scratch)
    if order.stages:
        found = stack_samples.sampled(contender, one, corpus, scratch)
    else:
        found = measure.measure(
            contender,
            one,
            corpus,
            scratch,
            reference=Path(order.reference) if order.reference else None,
            keep=Path(order.keep) if order.keep else None,
        )
    print(MARK + json.dumps(found))


if __name__ == "__main__":
    main()
