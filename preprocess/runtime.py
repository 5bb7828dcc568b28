"""Starting quickly: a batch job starts many processes, and none of them needs torch.

transformers imports torch wherever it is installed, which takes seconds and some hundred megabytes in every process.
Where a tokenizer brings code of its own, torch stays: that code may want it. A process that is somebody else's (who
calls this package from Python) is left as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

KEEP = "SFT_SHARDS_KEEP_TORCH"
OURS = ("sft-preprocess", "cli.py", "forkserver_preload.py")


def without_torch() -> None:
    """Let this process do as if torch were not installed, unless `keep_torch` was called in it or its parent."""
    if "torch" in sys.modules or os.environ.get(KEEP):
        return
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sys.modules["torch"] = None  # type: ignore[assignment]


def keep_torch() -> None:
    """Let this process, if it has not imported transformers yet, and its workers find torch."""
    os.environ[KEEP] = "1"
    if sys.modules.get("torch", os) is None:
        del sys.modules["torch"]


def is_ours() -> bool:
    """Whether this process is the command itself, and not somebody else's who imported us."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "").name in OURS


def one_thread() -> None:
    """Keep the tokenizer of this process to one thread: there is one process per CPU."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
