"""Which records of a task are verified: some of each kind, while they are a small part of the text, and a seeded share.

The choice follows from a task's records alone, never from a clock or from what the process did before: a verified
record that differs is left out, so another number of workers must not verify others.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from sft_shards.preprocess.pipeline.batch import RenderedBatch

PER_KIND = 16
"""Records of one kind that are verified besides the seeded share."""
SHARE = 2048
"""One byte of text in so many is verified besides the seeded share. The reference path takes some forty times as long
as the batch path for a byte, so this is about 2% of a task's work."""
LEAST = 8 << 10
"""Bytes of text that are verified of every task, however small."""


class Sample:
    """Chooses the records of one task that are verified.

    Args:
        every: one record in so many is chosen whatever it costs; 0 for none.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._text = self._spent = 0
        self._seen: Counter[int] = Counter()

    def choose(
        self, rendered: RenderedBatch, in_columns: NDArray[np.bool_], records: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return bool[n]: which of some records of a batch to verify. Batches come in the order of the task.

        Args:
            rendered: the batch.
            in_columns: bool[len(rendered)], whether the record was read in columns.
            records: int64[n], rising: the records of `rendered` that are still there.
        """
        rows = np.searchsorted(rendered.records, records)
        sizes = np.diff(rendered.text_offsets)[rows]
        self._text += int(sizes.sum())
        chosen = self._seeded(records)
        for row in self._affordable(kinds(rendered, in_columns)[rows], sizes):
            chosen[row] = True
        return chosen

    def _affordable(self, kinds: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[int]:
        """Return rows with too few of their kind so far, as far as they can be afforded; one at least of a task.

        Args:
            kinds: int64[n].
            sizes: int64[n], bytes of each text.
        """
        found = []
        wanted = [
            np.flatnonzero(kinds == kind)[: PER_KIND - self._seen[kind]]
            for kind in np.unique(kinds).tolist()
            if self._seen[kind] < PER_KIND
        ]
        for row in sorted(np.concatenate(wanted).tolist()) if wanted else ():
            size = int(sizes[row])
            if self._spent + size <= LEAST + self._text // SHARE:
                found.append(row)
                self._spent += size
                self._seen[int(kinds[row])] += 1
        if wanted and not self._spent:
            found = [int(sizes.argmin())]
            self._spent += int(sizes.min())
        return found

    def _seeded(self, records: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not self._every:
            return np.zeros(len(records), dtype=bool)
        hashed = (records.astype(np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
        return np.asarray(hashed % np.uint64(self._every) == 0)


def kinds(rendered: RenderedBatch, in_columns: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return int64[n]: for each record a number for what may make it go wrong in a way of its own.

    Records of one kind were all read in columns or not, have control tokens that somebody typed or not, and have about
    as many trained spans: 0, 1, 2 to 3, 4 to 7 and so on.
    """
    turns = np.frexp(np.diff(rendered.span_offsets))[1].astype(np.int64)
    typed = np.diff(rendered.typed_offsets) > 0
    return np.asarray(turns * 4 + typed * 2 + in_columns, dtype=np.int64)
