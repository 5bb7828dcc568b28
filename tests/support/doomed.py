"""Processes that kill themselves with SIGKILL at one of their changes of the disk."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any


def kill_at(step: int, names: Sequence[str], *, before: bool) -> Callable[[], int]:
    """Let this process kill itself at its `step`-th call of any of these functions of `os`.

    `fsync` does nothing from now on: SIGKILL loses nothing that the kernel has, and this makes room for more runs.

    Args:
        step: counted from 1; 0 for never.
        before: just before the change, not just after it.

    Returns:
        A function that says how many calls there were.
    """
    calls = 0

    def doomed(call: Callable[..., Any]) -> Callable[..., Any]:
        def with_end(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            here = calls == step
            if here and before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **options)
            finally:
                if here:
                    os.kill(os.getpid(), signal.SIGKILL)

        return with_end

    for name in names:
        setattr(os, name, doomed(getattr(os, name)))
    os.fsync = lambda handle: None  # type: ignore[assignment]
    return lambda: calls
