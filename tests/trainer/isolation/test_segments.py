"""Where the segments of a packed row begin and end."""

from __future__ import annotations

import pytest
import torch

from sft_shards.trainer.isolation.segments import find_segments

pytestmark = pytest.mark.unit


def test_a_segment_begins_at_each_position_zero() -> None:
    found = find_segments(torch.tensor([[0, 1, 2, 0, 1, 0]]), "cpu")
    assert found.bounds.tolist() == [0, 3, 5, 6]
    assert found.bounds.dtype == torch.int32
    assert found.lengths == (3, 2, 1)


def test_rows_are_laid_one_behind_the_other() -> None:
    assert find_segments(torch.tensor([[0, 1, 0], [0, 1, 2]]), "cpu").bounds.tolist() == [0, 2, 3, 6]
    with pytest.raises(AssertionError, match="begins a segment"):
        find_segments(torch.tensor([[0, 1], [2, 3]]), "cpu")
