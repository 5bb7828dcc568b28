"""What becomes of sequences that are too long."""

import numpy as np
import pytest

from formats.errors import DataError, RecordError
from preprocess.encode import Encoded
from preprocess.overlong import fit

MASK = [0, 0, 1, 1, 0, 0, 1, 1, 1, 0]


def sequence(mask=MASK):
    return Encoded(ids=np.arange(len(mask), dtype=np.int32), loss_mask=np.asarray(mask, dtype=np.uint8), straddling=0)


@pytest.mark.parametrize(
    ("how", "length", "kept"),
    [
        ("truncate", 7, range(7)),
        ("turns", 8, range(4)),
        ("turns", 9, range(9)),
        ("tail", 5, range(5, 10)),
        ("drop", 10, range(10)),
        ("error", 10, range(10)),
        ("truncate", None, range(10)),
    ],
)
def test_kept(how, length, kept):
    fitted, cut = fit(sequence(), length, how)
    assert fitted.ids.tolist() == list(kept)
    assert fitted.loss_mask.tolist() == [MASK[place] for place in kept]
    assert cut == (len(kept) < 10)


@pytest.mark.parametrize(
    ("how", "length", "why"),
    [
        ("drop", 9, "overlong"),
        ("truncate", 2, "no_trained_token"),
        ("turns", 3, "no_trained_token"),
        ("tail", 1, "no_trained_token"),
    ],
)
def test_left_out(how, length, why):
    with pytest.raises(RecordError) as caught:
        fit(sequence(), length, how)
    assert caught.value.reason == why


def test_error_ends_the_job():
    with pytest.raises(DataError, match="10 tokens, more than --max-length 9"):
        fit(sequence(), 9, "error")


def test_a_first_token_alone_is_no_target():
    with pytest.raises(RecordError, match="no_trained_token"):
        fit(sequence([1, 0, 0]), None, "drop")
