"""Imported once by the server that workers are forked from, so that a worker starts in milliseconds."""

# ruff: noqa: E402, F401
from preprocess.startup import one_thread, without_torch

without_torch()
one_thread()

import pyarrow.parquet
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import preprocess.engines.worker
