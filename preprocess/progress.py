"""The progress of a job on standard error: a bar on a terminal, a line every 15 seconds otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from sft_shards.formats.terminal import UNLIMITED, width_of

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
        self._begin = self._shown = time.monotonic()
        self._lines = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal or self._lines:
            self._show("\n", finished=kind is None and self.done >= self.tasks)

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

    def line(self, seconds: float, *, width: int = UNLIMITED, finished: bool = False) -> str:
        """Format the progress after so many seconds; what does not fit is left out, the bar and the rates first.

        >>> progress = Progress(tasks=2, size=100)
        >>> progress.add(10, 1000, 1, 25)
        >>> progress.line(5.0)
        '█████░░░░░░░░░░░░░░░  25%  0:00:15 left  10 records (2/s)  1,000 tokens (200/s)  1 left out  task 0/2'
        >>> progress.line(5.0, width=40)
        ' 25%  0:00:15 left  10 records'

        Args:
            width: characters of the line at most.
            finished: whether everything is done, and the seconds are what it took.
        """
        seconds = max(seconds, 1e-9)
        share = 1.0 if finished or not self.size else (self.passed + self.bytes) / self.size
        left = "…"
        if self.bytes:
            left = clock((self.size - self.passed - self.bytes) * seconds / self.bytes)
        time_ = f"in {clock(seconds)}" if finished else f"{left} left"
        counts = [f"{self.records:,} records", f"{self.tokens:,} tokens", f"{self.rejects:,} left out"]
        rates = [f" ({count / seconds:,.0f}/s)" for count in (self.records, self.tokens)]
        full = round(share * WIDTH)
        bar = f"{'█' * full}{'░' * (WIDTH - full)} "
        parts = [f"{share:4.0%}", time_, *counts, f"task {self.done}/{self.tasks}"]
        with_rates = [*parts[:2], counts[0] + rates[0], counts[1] + rates[1], *parts[4:]]
        forms = [bar + "  ".join(with_rates), bar + "  ".join(parts)]
        forms += ["  ".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((form for form in forms if len(form) <= width), forms[-1][:width])

    def _show(self, end: str, *, finished: bool = False) -> None:
        self._lines += 1
        width = width_of(sys.stderr) - 1
        line = self.line(time.monotonic() - self._begin, width=width, finished=finished)
        print(f"\r\x1b[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Format seconds as H:MM:SS.

    >>> clock(3725)
    '1:02:05'
    """
    whole = max(round(seconds), 0)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
