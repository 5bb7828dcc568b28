"""Starting quickly: a batch job starts many processes, and none of them needs torch.

transformers imports torch wherever it is installed, which takes seconds and some hundred megabytes in every process.
Torch is kept where a tokenizer brings code of its own, which may need it, and in any program that is not the command
itself but calls this package from Python.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

KEEP = "SFT_SHARDS_KEEP_TORCH"
"""Environment: set where torch is to be found."""
COMMANDS = ("sft-preprocess", "cli.py", "forkserver_preload.py")


def without_torch() -> None:
    """Make torch look uninstalled to this process, unless `keep_torch` was called in it or in its parent."""
    if "torch" in sys.modules or os.environ.get(KEEP):
        return
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sys.modules["torch"] = None  # type: ignore[assignment]


def keep_torch() -> None:
    """Let this process and its workers find torch. Call it before transformers is imported."""
    os.environ[KEEP] = "1"
    if sys.modules.get("torch", os) is None:
        del sys.modules["torch"]


def is_command() -> bool:
    """Whether this process is `sft-preprocess` or a worker of it, and not another program that imports this package."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "").name in COMMANDS


def can_fork() -> bool:
    """Whether a copy of this process can be a worker: it is the command, and no other thread of Python's runs.

    A thread that is not copied leaves locked whatever it has locked. Of the libraries, those with threads of their own
    (OpenBLAS, Arrow, tokenizers, fastokens) set themselves up anew in the copy. Of another program nothing is known.
    """
    return is_command() and threading.active_count() == 1


def one_thread() -> None:
    """Limit the tokenizer of this process to one thread, because there is one process per CPU."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
