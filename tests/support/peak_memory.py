"""The most memory that a test run held at once: a thread adds up the run and every process that belongs to it.

A page that several processes share counts once (PSS, the kernel's proportional set size). A process belongs to the run
if it descends from it or carries its mark in the environment: what Slurm starts for a test has another parent. A sample
a second costs little, and a peak that lasts for less than that may be missed.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

MARK = "SFT_SHARDS_TEST_RUN"
SECONDS = 1.0


class PeakMemory:
    """Begin with `start()`; `stop()` gives the peak in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._mark = f"{MARK}={os.getpid()}".encode()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Mark what this process starts from now on, and begin to look."""
        os.environ[MARK] = str(os.getpid())
        self._thread.start()

    def stop(self) -> int:
        """End the thread; the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, sum(map(held, self._processes())))
            if self._ended.wait(SECONDS):
                return

    def _processes(self) -> list[int]:
        """The run, in the order of process ids, in which a parent mostly stands before its children."""
        ours = {os.getpid()}
        for number in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
                if parent in ours or self._mark in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                    ours.add(number)
            except OSError:  # it has ended, or is somebody else's
                continue
        return sorted(ours)


def held(number: int) -> int:
    """Bytes of memory of a process, its part of what it shares; 0 if it has ended."""
    try:
        rows = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) * 1024
