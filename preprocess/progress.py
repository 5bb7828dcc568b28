"""What a job says while it runs: a bar on a terminal, a line now and then otherwise, always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY = 15.0
"""Seconds between two lines where standard error is no terminal."""


class Progress:
    """Counts records, tokens and rejects, and shows them with their rates."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.done = 0
        self.records = self.tokens = self.rejects = 0
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

    def add(self, records: int, tokens: int, rejects: int) -> None:
        """Count what came since the last call."""
        self.records += records
        self.tokens += tokens
        self.rejects += rejects
        now = time.monotonic()
        if now - self._shown >= (0.1 if self._terminal else EVERY):
            self._shown = now
            self._show("" if self._terminal else "\n")

    def task_done(self) -> None:
        """Count a finished task."""
        self.done += 1

    def _show(self, end: str) -> None:
        seconds = max(time.monotonic() - self._begin, 1e-9)
        line = (
            f"task {self.done}/{self.tasks}  {self.records:,} records ({self.records / seconds:,.0f}/s)  "
            f"{self.tokens:,} tokens ({self.tokens / seconds:,.0f}/s)  {self.rejects:,} left out"
        )
        print(f"\r\x1b[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)
