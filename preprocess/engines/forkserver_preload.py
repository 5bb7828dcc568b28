"""Imported once by the server that workers are forked from, so that a worker starts in milliseconds.

The job is loaded here too (a large tokenizer with its tables takes seconds), and workers share its memory. Nothing is
encoded here: an engine that starts threads would not survive the fork.
"""

# ruff: noqa: E402, F401
import contextlib
import gc
import os
from pathlib import Path

from sft_shards.preprocess.runtime import one_thread, without_torch

without_torch()
one_thread()

import pyarrow.parquet

from sft_shards.preprocess.engines import worker

if os.environ.get(worker.JOB):
    with contextlib.suppress(Exception):  # a worker meets the same and says it
        worker.prepare(Path(os.environ[worker.JOB]))
gc.freeze()
