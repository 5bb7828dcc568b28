"""Verification while a job runs: a sample of the sequences is made again by the reference pipeline, and compared.

The backend was compared with Hugging Face's ids before the job started. No test can try all texts, so the job goes on
looking: at the first sequences of every process, and at a share of the others, which the record number chooses. A
difference ends the job rather than being written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.records import RecordFormat
from sft_shards.preprocess.pipeline.batch import TokenizedBatch
from sft_shards.preprocess.pipeline.reference import ReferencePipeline
from sft_shards.preprocess.pipeline.tokenize import disagreement, first_difference, require_same_ids
from sft_shards.preprocess.sources import RawBatch

ALWAYS_VERIFIED = 100
"""Of so many sequences, the first that a process makes, each is compared."""


class Verification:
    """Compares a sample of the sequences of a process with the reference pipeline.

    Args:
        reference: the reference pipeline.
        backend: the name of what gave the ids, for messages.
        every: one sequence in so many is compared; 0 for the first ones only.
    """

    def __init__(self, reference: ReferencePipeline, backend: str, every: int) -> None:
        self._reference, self._backend, self._every = reference, backend, every
        self._verified = 0

    def verify(self, raw: RawBatch, format_: RecordFormat, tokenized: TokenizedBatch) -> None:
        """Compare a sample of sequences with what the reference pipeline makes of their raw records.

        Raises:
            DataError: ids or masks differ, or the reference rejects a record; the record is named.
        """
        chosen = np.flatnonzero(self.sample(tokenized.records))
        if not len(chosen):
            return
        got = tokenized.select(chosen)
        rows = (got.records - raw.first).tolist()
        reference = self._reference
        expected = reference.tokenize(reference.render(reference.read(raw, format_, rows)))
        require_same_ids(got, expected, self._backend)
        different = got.loss_mask != expected.loss_mask
        if different.any():
            row = int(np.searchsorted(got.offsets, different.argmax(), side="right")) - 1
            at = first_difference(got.sequence(row)[1], expected.sequence(row)[1])
            raise disagreement(int(got.records[row]), f"the mask differs from the one by offsets at token {at}")

    def sample(self, records: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool[n]: which records to compare: the first ones of the process, then a seeded share."""
        chosen = np.arange(self._verified, self._verified + len(records)) < ALWAYS_VERIFIED
        self._verified += int(chosen.sum())
        if self._every:
            hashed = (records.astype(np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
            chosen |= hashed % np.uint64(self._every) == 0
        return chosen
