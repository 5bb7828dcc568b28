"""Where samples are dealt by cost: to several ranks, or to the micro-batches of several pipeline stages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import megatron_flags
import pytest

from sft_shards.trainer import parallel_layout
from sft_shards.trainer.stage import Stage

pytestmark = pytest.mark.unit


def balances(world: int, *, packed: bool = True, no_balance: bool = False, **flags: Any) -> bool:
    args = megatron_flags.args(**flags)
    stage = Stage.__new__(Stage)
    setup: Any = SimpleNamespace(
        args=args,
        layout=parallel_layout.from_flags(args, world),
        isolation=SimpleNamespace(packed=packed),
        job=SimpleNamespace(no_balance=no_balance),
    )
    stage.setup = setup
    if world == flags.get("pipeline_model_parallel_size"):
        assert stage.waiting() is None, "no rank waits for another"
    return stage.balances


def test_samples_are_dealt_where_somebody_would_wait() -> None:
    stages = {"pipeline_model_parallel_size": 2, "global_batch_size": 8}
    assert balances(2)
    assert balances(2, **stages)
    assert not balances(1)
    assert not balances(2, tensor_model_parallel_size=2)
    assert not balances(2, packed=False)
    assert not balances(2, no_balance=True)
    assert not balances(2, rampup_batch_size=["2", "2", "8"], **stages)
