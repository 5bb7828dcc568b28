"""Pass signals on to the workers, so that they save a checkpoint and end before the machine is taken away.

Slurm sends SIGTERM to a job that it preempts, and SIGUSR1 before the time limit (`--signal=USR1@120`). torchrun's agent
would pass SIGTERM on and kill the workers 30 seconds later. Here both signals reach the workers as the SIGTERM that
Megatron's --exit-signal-handler waits for, and a checkpoint may take as long as it needs. Workers that cannot save (no
--save, or training has not begun) are ended by SIGTERM. The same call resumes the run later.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
WORKER = "sft_shards.trainer.worker"


class StoppedError(Exception):
    """A signal ended the run; the same call resumes it from the last checkpoint."""

    exit_code = 200
    """Above 128 + any signal: `srun` reports the highest status of all nodes, and one may be killed."""


class Handler:
    """Passes signals on to the workers while torchrun's agent runs in this process; a context manager."""

    _agent: Any
    received: signal.Signals | None = None
    """The last of `SIGNALS` that was received; None: none was."""

    def __enter__(self) -> Handler:
        # The agent looks this function up by name whenever it starts workers, in torch 2.13 and in versions without
        # --signals-to-handle.
        self._agent = importlib.import_module("torch.distributed.elastic.multiprocessing.api")
        self._end = self._agent._terminate_process_handler
        self._agent._terminate_process_handler = self._handle
        self._before = {each: signal.signal(each, self._handle) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._agent._terminate_process_handler = self._end
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number not in SIGNALS:
            self._end(number, frame)  # an interrupt: raises SignalException, which ends everything
            return
        self.received = signal.Signals(number)
        if not _terminate_workers():  # they have not started yet
            self._end(number, frame)


def _terminate_workers() -> int:
    """Send SIGTERM to the workers and return their number."""
    import psutil

    count = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if WORKER in child.cmdline():
                count += 1
                child.send_signal(signal.SIGTERM)
    return count
