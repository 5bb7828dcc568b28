"""Our command as a process: of this checkout or of another one, on some cores, with its CPU and wall seconds."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.child import QUIET, ROOT


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run of the command, start and end included."""

    wall: float
    cpu: float
    tokens: int
    digest: str
    """SHA-256 over the names and bytes of all tokens and masks that it wrote."""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A folder with the sources, which need not be installed."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """With this checkout's packages first on Python's path, by the import names of either layout."""
        return {**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join([str(self.folder), str(self.folder / ".mypy")])}

    def entry(self, command: str = "sft-preprocess") -> str:
        """The module of a command, as setup.cfg names it."""
        config = configparser.ConfigParser()
        config.read(self.folder / "setup.cfg")
        lines = config.get("options.entry_points", "console_scripts", fallback="").splitlines()
        for line in lines:
            name, _, place = line.partition("=")
            if name.strip() == command:
                return place.strip().partition(":")[0]
        raise SystemExit(f"{self.folder}: no {command} among the entry points of setup.cfg")

    def run(self, source: Path, output: Path, *, tokenizer: Path, workers: int = 1, cores: set[int]) -> Finished:
        """Run the job over a file or folder of OpenAI messages; what it wrote is removed again."""
        call = ["run", str(source), "--output", str(output), "--tokenizer", str(tokenizer)]
        call += ["--format", "openai", "--workers", str(workers), "--json"]
        program = f"import os; os.sched_setaffinity(0, {cores}); from {self.entry()} import main; main()"
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *call],
            capture_output=True,
            text=True,
            env=self.environment(),
            check=False,
        )
        wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{self.folder}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        tokens = sum(split["tokens"] for split in json.loads(done.stdout)["splits"].values())
        digest = hashlib.sha256()
        for path in sorted(output.glob("*/*/*.bin")):
            digest.update(str(path.relative_to(output)).encode() + path.read_bytes())
        shutil.rmtree(output)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Finished(wall=wall, cpu=cpu, tokens=tokens, digest=digest.hexdigest())


HERE = Checkout(folder=ROOT)
