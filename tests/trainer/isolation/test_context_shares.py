"""What each context rank gets, by the slicing that Megatron's data loader applies to one sequence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_shards.trainer.isolation.context_shares import context_shares
from sft_shards.trainer.isolation.segments import Segments

pytestmark = pytest.mark.unit


def test_the_example() -> None:
    segments = Segments(bounds=None, lengths=(8,))
    found = [context_shares(segments, ranks=2, rank=rank, device="cpu").mine.tolist() for rank in range(2)]
    assert found == [[0, 1, 6, 7], [2, 3, 4, 5]]


@settings(deadline=None)
@given(st.integers(2, 8), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_every_rank_gets_a_chunk_and_its_mirror_image_of_each_segment(ranks: int, sizes: list[int]) -> None:
    import torch

    lengths = tuple(2 * ranks * size for size in sizes)
    segments = Segments(bounds=None, lengths=lengths)
    gathered = []
    for rank in range(ranks):
        made = context_shares(segments, ranks=ranks, rank=rank, device="cpu")
        pieces = torch.arange(sum(lengths)).split(list(lengths))
        # as `get_batch_on_this_cp_rank` slices a sequence: a view of 2 x CP chunks, of which two are selected
        expected = [piece.view(2 * ranks, -1)[[rank, 2 * ranks - rank - 1]].flatten() for piece in pieces]
        assert made.mine.tolist() == torch.cat(expected).tolist()
        gathered += made.mine.tolist()
    assert made.by_rank.tolist() == gathered
    assert made.by_rank[made.places].tolist() == list(range(sum(lengths)))


def test_a_segment_that_does_not_divide_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        context_shares(Segments(bounds=None, lengths=(8, 6)), ranks=2, rank=0, device="cpu")
