"""The last line on standard error, remembered while the workers write to it.

A worker that ends in an abort, or before its own code runs, leaves nothing but what it printed. torchrun's agent and
its workers share this process's standard error, so a pipe takes its place: a thread passes every byte on at once and
remembers the last line. With several workers it is the last line of any of them.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType

FD = 2
"""File descriptor of standard error."""
LIMIT = 4096
"""Bytes that are remembered of a line."""


class StderrTail:
    """Passes standard error on and remembers its last line; a context manager."""

    def __init__(self) -> None:
        self._line = b""

    def __enter__(self) -> StderrTail:
        sys.stderr.flush()
        self._original = os.dup(FD)
        read, write = os.pipe()
        os.dup2(write, FD)
        os.close(write)
        self._thread = threading.Thread(target=self._copy, args=(read,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        sys.stderr.flush()
        os.dup2(self._original, FD)  # closes our end of the pipe; the thread ends with the last worker's
        self._thread.join(timeout=1.0)
        if not self._thread.is_alive():  # else a process that stays behind still writes
            os.close(self._original)

    @property
    def last(self) -> str:
        """The last line that is not empty; "" before the first."""
        return " ".join(self._line.decode("utf-8", "replace").split())

    def _copy(self, read: int) -> None:
        begun = b""
        while block := os.read(read, 1 << 16):
            rest = block
            while rest:
                rest = rest[os.write(self._original, rest) :]
            *whole, begun = (begun + block).split(b"\n")
            for line in whole:
                if line.strip():
                    self._line = line[:LIMIT]
            if begun.strip():
                self._line = begun = begun[:LIMIT]
        os.close(read)
