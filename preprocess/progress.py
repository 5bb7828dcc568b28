"""The progress of a job on standard error: a bar on a terminal, a line every 15 seconds otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY = 15.0
"""Seconds between two lines where standard error is not a terminal."""
WIDTH = 20
"""Characters of the bar."""


class Progress:
    """Counts records, tokens, rejects and input bytes, and shows them with their rates and the time left.

    Args:
        tasks: number of tasks.
        done: how many of them were finished before.
        size: bytes of input of all tasks.
        passed: bytes of input of the tasks that were finished before.
    """

    def __init__(self, *, tasks: int, done: int = 0, size: int = 0, passed: int = 0) -> None:
        self.tasks = tasks
        self.done = done
        self.size = size
        self.passed = passed
        self.records = self.tokens = self.rejects = self.bytes = 0
        self._terminal = sys.stderr.isatty()
        self._begin = time.monotonic()
        self._shown = self._begin

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            self._show("\n")

    def add(self, records: int, tokens: int, rejects: int, size: int) -> None:
        """Count records, tokens, rejects and bytes of input, and show the progress if it is time."""
        self.records += records
        self.tokens += tokens
        self.rejects += rejects
        self.bytes += size
        now = time.monotonic()
        if now - self._shown >= (0.1 if self._terminal else EVERY):
            self._shown = now
            self._show("" if self._terminal else "\n")

    def task_done(self) -> None:
        """Count a finished task."""
        self.done += 1

    def line(self, seconds: float) -> str:
        """Format the progress after so many seconds.

        >>> progress = Progress(tasks=2, size=100)
        >>> progress.add(10, 1000, 1, 25)
        >>> progress.line(5.0)
        '█████░░░░░░░░░░░░░░░ task 0/2  10 records (2/s)  1,000 tokens (200/s)  1 left out  0:00:15 left'
        """
        seconds = max(seconds, 1e-9)
        share = (self.passed + self.bytes) / self.size if self.size else 1.0
        left = "…"
        if self.bytes:
            left = clock((self.size - self.passed - self.bytes) * seconds / self.bytes)
        full = round(share * WIDTH)
        return (
            f"{'█' * full}{'░' * (WIDTH - full)} task {self.done}/{self.tasks}  "
            f"{self.records:,} records ({self.records / seconds:,.0f}/s)  "
            f"{self.tokens:,} tokens ({self.tokens / seconds:,.0f}/s)  {self.rejects:,} left out  {left} left"
        )

    def _show(self, end: str) -> None:
        line = self.line(time.monotonic() - self._begin)
        print(f"\r\x1b[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Format seconds as H:MM:SS.

    >>> clock(3725)
    '1:02:05'
    """
    whole = max(round(seconds), 0)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
