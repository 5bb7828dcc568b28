"""What becomes of a conversation that is longer than `--max-length`, in words that the trainer uses too."""

from __future__ import annotations

import numpy as np

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.pipeline.reference import Encoded


def fit(encoded: Encoded, max_length: int | None, how: str) -> tuple[Encoded, bool]:
    """A sequence of at most `max_length` tokens, and whether anything was cut off.

    `drop` leaves the record out; `truncate` cuts behind the last token that fits; `turns` cuts behind the last
    trained span that fits as a whole; `tail` keeps the last tokens; `error` ends the job. However it was cut, a
    record that is left with no trained token but its first (which nothing predicts) is left out.

    Raises:
        RecordError: `overlong`, `no_trained_token`.
        DataError: `error` was asked for.
    """
    length = len(encoded.ids)
    cut = max_length is not None and length > max_length
    if cut and max_length is not None:
        if how == "error":
            raise DataError(
                f"{length} tokens, more than --max-length {max_length}; raise it or choose another --overlong, "
                "and run again with --overwrite"
            )
        if how == "drop":
            raise RecordError("overlong", f"{length} tokens, more than {max_length}")
        keep = slice(length - max_length, length) if how == "tail" else slice(0, max_length)
        if how == "turns":
            ends = np.flatnonzero(np.diff(encoded.loss_mask.astype(np.int8), append=0) == -1) + 1
            fitting = ends[ends <= max_length]
            keep = slice(0, int(fitting[-1]) if len(fitting) else 0)
        encoded = Encoded(ids=encoded.ids[keep], loss_mask=encoded.loss_mask[keep], straddling=encoded.straddling)
    if not encoded.loss_mask[1:].any():
        raise RecordError(
            "no_trained_token",
            "cut to the length allowed, nothing of the assistant is left" if cut else "nothing carries loss",
        )
    return encoded, cut
