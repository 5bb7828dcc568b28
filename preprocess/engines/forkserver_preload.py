"""Imported once by the server that workers are forked from, so that a worker starts in milliseconds.

The job is loaded here too (a large tokenizer with its tables takes seconds), and workers share its memory. Nothing is
encoded here: a backend that starts threads would not survive the fork.
"""

# ruff: noqa: E402, F401
import contextlib
import gc
import os
from pathlib import Path

from sft_shards.preprocess.engines.worker_log import redirect_worker
from sft_shards.preprocess.runtime import one_thread, without_torch

without_torch()
one_thread()
os.register_at_fork(after_in_child=redirect_worker)

import pyarrow.parquet

from sft_shards.preprocess.engines import worker

if os.environ.get(worker.JOB):
    with contextlib.suppress(Exception):  # each worker meets the same error, and reports it
        worker.prepare(Path(os.environ[worker.JOB]))
gc.freeze()
