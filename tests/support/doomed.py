"""Jobs that kill themselves with SIGKILL at one of their changes of the disk.

In a module that a server of processes can import, however pytest was started.
"""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def doomed_job(inputs: Sequence[Path], output: Path, workers: int, step: int, before: bool) -> None:
    """In a process of its own: a small job, which kills itself at its n-th rename or removal, if it is to.

    Args:
        step: counted from 1; 0 for never.
        before: just before the change, not just after it.
    """
    from preprocess_jobs import config

    from sft_shards.preprocess.job import run

    kill_at(step, ("rename", "replace", "rmdir", "unlink"), before=before)
    run(config(inputs, shard_tokens=2500), output, workers=workers)


def kill_at(step: int, names: Sequence[str], *, before: bool) -> None:
    """Let this process kill itself at its `step`-th call of any of these functions of `os`."""
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
