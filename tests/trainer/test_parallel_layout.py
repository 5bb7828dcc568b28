"""The layout that follows from Megatron's flags, and flags from which none follows."""

from __future__ import annotations

from typing import Any

import pytest
from megatron_flags import args

from sft_shards.formats.errors import UsageError
from sft_shards.trainer import parallel_layout

pytestmark = pytest.mark.unit


def test_the_layout_follows_from_the_flags() -> None:
    found = parallel_layout.from_flags(args(tensor_model_parallel_size=2, micro_batch_size=2), 8)
    assert (found.data, found.global_batch, found.eval_batch) == (4, 8, 8)


def test_context_ranks_share_a_sample() -> None:
    alone = parallel_layout.from_flags(args(), 8)
    assert (alone.data, alone.multiple, str(alone)) == (8, 1, "TP 1 x PP 1 x DP 8")
    found = parallel_layout.from_flags(args(context_parallel_size=4, tensor_model_parallel_size=2), 8)
    assert (found.data, found.multiple, str(found)) == (1, 8, "TP 2 x PP 1 x CP 4 x DP 1")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"seq_length": None}, "--seq-length is missing"),
        ({"train_iters": None}, "--epochs is missing"),
        ({"lr": None}, "--lr is missing"),
        ({"context_parallel_size": 0}, "--context-parallel-size 0: it is at least 1"),
        ({"context_parallel_size": 3, "seq_length": 18}, "TP 1 x PP 1 x CP 3: --nproc x nodes must be a multiple of 3"),
        ({"context_parallel_size": 4, "seq_length": 20}, "20 is not a multiple of 8 = 2 x CP 4; make it 24"),
        (
            {"context_parallel_size": 2, "tensor_model_parallel_size": 2, "sequence_parallel": True, "seq_length": 12},
            "not a multiple of 8 = 2 x CP 2 x TP 2 .--sequence-parallel.; make it 16",
        ),
        ({"context_parallel_size": 2, "calculate_per_token_loss": False}, "needs calculate-per-token-loss"),
        ({"context_parallel_size": 2, "mtp_num_layers": 1}, "--mtp-num-layers is not supported with --context"),
        ({"tensor_model_parallel_size": 3}, "multiple of 3"),
        ({"tensor_model_parallel_size": 8}, "4 process.es. are too few for TP 8 x PP 1: --nproc x nodes"),
        ({"expert_model_parallel_size": 8}, "EP x expert TP 8 x PP 1: --nproc x nodes must be a multiple of 8"),
        ({"global_batch_size": 6, "micro_batch_size": 4}, "multiple of --micro-batch-size 4 x DP 4"),
        ({"micro_batch_size": 0}, "multiple of --micro-batch-size 0"),
    ],
)
def test_layouts_that_cannot_be(given: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        parallel_layout.from_flags(args(**given), 4)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "--epochs and --train-iters both"),
        ({"train_iters": None, "train_samples": 5}, "--epochs and --train-samples both"),
        ({"train_iters": None, "rampup_batch_size": ["1", "1", "5"]}, "does not change"),
    ],
)
def test_epochs_and_other_ways_to_say_how_long(given: dict[str, Any], word: str) -> None:
    assert parallel_layout.from_flags(args(train_iters=None), 4, epochs=True).global_batch == 4
    with pytest.raises(UsageError, match=word):
        parallel_layout.from_flags(args(**given), 4, epochs=True)
