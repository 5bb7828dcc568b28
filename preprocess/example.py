"""One rendered record in colour, shown when a job starts: what carries loss is seen before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from formats.errors import RecordError
from preprocess.inspect import coloured, stretches
from preprocess.pipeline import Pipeline
from preprocess.sources import Item

CHARACTERS = 1200
"""What is longer is cut in the middle."""


def example(pipeline: Pipeline, items: Iterable[Item], form: str, *, colour: bool) -> str | None:
    """The first record that becomes a sequence, its trained parts in green or between ⟦ ⟧; None where none does."""
    for number, record in items:
        if isinstance(record, RecordError):
            continue
        batch = pipeline.batch([(number, record)], form)
        if not len(batch.lengths):
            continue
        parts = stretches(batch.ids, np.asarray(batch.loss_mask), pipeline.tokenizer)
        text = coloured(parts, colour=colour)
        if len(text) > CHARACTERS:
            half = CHARACTERS // 2
            text = f"{text[:half]}\n … {len(text) - 2 * half:,} characters …\n{text[-half:]}"
        trained = int(batch.loss_mask.sum())
        return f"record {number}: {len(batch.ids):,} tokens, {trained:,} carry loss\n{text}"
    return None
