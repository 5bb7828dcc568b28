"""What runs in a peer's process, perhaps with another Python: `start` here, `main` there.

Nothing of ours is imported in it beside this package; the peer, and what it needs, is all that it must have.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import Case
from benchmarks.peers.projects import PROJECTS

ROOT = Path(__file__).resolve().parents[2]
MARK = "PEERS-RESULT "


def start(name: str, checkout: str, program: str, cases: list[Case]) -> dict[str, Any]:
    """A peer's version and results; one `error` for all where it cannot be started."""
    call = [program, "-m", "benchmarks.peers.child", name, checkout or "."]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        call, input=json.dumps(cases), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
    return {"version": "?", "results": [{"error": f"cannot be started: {last}"}] * len(cases)}


def main() -> None:
    """One peer over the cases on standard input; its results go to standard output."""
    name, checkout = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    project = PROJECTS[name]
    if project.package is not None:
        version = importlib.metadata.version(project.package)
    else:
        git = subprocess.run(["git", "-C", checkout, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
        version = git.stdout.strip() or "unknown"
    version += f" with transformers {importlib.metadata.version('transformers')}"
    cases, out = json.load(sys.stdin), []
    with contextlib.redirect_stdout(sys.stderr):
        one = project.load(Path(checkout))
        for case in cases:
            if name in case.get("not_run", ()):
                out.append({"error": case["not_run"][name]})
                continue
            try:
                out.append({"pairs": one(case)})
            except Exception as error:
                out.append({"error": " ".join(f"{type(error).__name__}: {error}".split())})
    print(MARK + json.dumps({"version": version, "results": out}))


if __name__ == "__main__":
    main()
