"""What workers write to standard error: passed on to ours as it comes, and kept for when a worker dies.

Each worker's standard error is a file of its own, so that a worker never waits for somebody who reads it, and the last
line of a dead one can be told from the others'. A worker forked by a server of ours (`forkserver_preload`) writes there
from its first moment on, before it imports anything; any other does so as soon as its own code begins.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from sft_shards.formats.terminal import printable_text

FOLDER = "SFT_SHARDS_WORKER_LOGS"
"""Environment: the folder for the files, where one is in use."""
SHOWN = 500
"""Characters of a last line that a message shows."""


def redirect_stderr(path: str | os.PathLike[str]) -> None:
    """Append to a file what this process, and any library in it, writes to standard error."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 2)
    os.close(handle)


def redirect_worker() -> None:
    """Do so for a worker whose parent reads the files; elsewhere, nothing."""
    folder = os.environ.get(FOLDER)
    if folder and os.path.isdir(folder):
        with contextlib.suppress(OSError):
            redirect_stderr(_path(folder, os.getpid()))


def last_line(text: bytes) -> str:
    """Give the last line that is not blank, at most `SHOWN` characters of it.

    >>> last_line(b"Traceback (most recent call last):\\nKeyError: 'x'\\n\\n")
    "KeyError: 'x'"
    """
    lines = [line.strip() for line in text.decode("utf-8", errors="replace").splitlines()]
    return next((line[:SHOWN] for line in reversed(lines) if line), "")


def log_folder() -> str:
    """Return the folder for the files, made where it is not there; it is removed when this process ends.

    It is one for the life of this process: the server that workers are forked from is told of it once, when it starts.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="sft-shards-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


class WorkerLogs:
    """The parent's side: a folder with a file per worker, removed when the workers are done."""

    def __init__(self) -> None:
        self._folder = log_folder()
        self._read: dict[int, int] = {}
        self._since: dict[int, int] = {}

    def forward(self, worker: int) -> None:
        """Write to our standard error what a worker, by its process id, has written since the last call."""
        text = self._text(worker, self._read.get(worker, 0))
        self._read[worker] = self._read.get(worker, 0) + len(text)
        if text:
            sys.stderr.write(printable_text(text.decode("utf-8", errors="replace")))
            sys.stderr.flush()

    def begin(self, worker: int) -> None:
        """Forget what a worker has written so far: it begins another task."""
        self.forward(worker)
        self._since[worker] = self._read[worker]

    def last_line(self, worker: int) -> str:
        """Give the last line that a worker wrote during its task, "" if it wrote none."""
        return last_line(self._text(worker, self._since.get(worker, 0)))

    def close(self) -> None:
        """Remove the folder; workers that start now keep the standard error that they inherit."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _text(self, worker: int, begin: int) -> bytes:
        try:
            with _path(self._folder, worker).open("rb") as file:
                file.seek(begin)
                return file.read()
        except OSError:
            return b""


def _path(folder: str, worker: int) -> Path:
    return Path(folder) / f"{worker}.stderr"
