"""A run goes on with the packs that it began with, or is refused; what does not count samples goes on."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.mcore import resumed_packs

pytestmark = pytest.mark.unit


def save(folder: Path, state: object) -> str:
    import torch

    (folder / "iter_0000003").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("3")
    torch.save(state, folder / "iter_0000003/common.pt")
    return str(folder)


def check(load: str | None, context: int, **flags: Any) -> None:
    usual = {"finetune": False, "skip_train": False, "ckpt_step": None}
    resumed_packs.check(Namespace(load=load, context_parallel_size=context, **{**usual, **flags}))


@pytest.mark.parametrize(("began", "now"), [(1, 2), (2, 1), (2, 4)])
def test_another_context_parallel_size_is_refused(tmp_path: Path, began: int, now: int) -> None:
    saved = Namespace(context_parallel_size=began, consumed_train_samples=12)
    load = save(tmp_path / "out", {"args": saved})
    check(load, began)
    with pytest.raises(
        UsageError, match=f"began with --context-parallel-size {began}, and {now} .* give {began} again"
    ):
        check(load, now)
    check(load, now, finetune=True)
    check(load, now, skip_train=True)


@pytest.mark.parametrize(
    "state",
    [
        {"args": Namespace(context_parallel_size=2, consumed_train_samples=0)},
        {"args": Namespace(consumed_train_samples=12)},
        {"iteration": 3},
        [],
    ],
    ids=["nothing consumed", "of another Megatron", "no arguments", "something else"],
)
def test_a_checkpoint_that_says_nothing_of_packs_goes_on(tmp_path: Path, state: object) -> None:
    check(save(tmp_path / "out", state), 4)


def test_without_a_checkpoint(tmp_path: Path) -> None:
    check(None, 2)
    check(str(tmp_path), 2)
