"""What `pretrain()` gets when it asks for data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import PAD, random_pairs, write_shards

from formats.shards import ShardDirectory
from trainer.data import select
from trainer.provider import DatasetProvider


def provider(folder: Path, *, valid: bool) -> DatasetProvider:
    directory = ShardDirectory(
        write_shards(folder, {"train": random_pairs(6, seed=1), "valid": random_pairs(3, seed=2)})
    )
    chosen = {name: select([directory.split(name)], seq_length=32, overlong="drop") for name in ("train", "valid")}
    return DatasetProvider(
        train=chosen["train"], valid=chosen["valid"] if valid else None, seq_length=32, pad_id=PAD, seed=1, eval_pass=4
    )


def test_every_tensor_rank_builds_its_own(tmp_path: Path) -> None:
    assert provider(tmp_path, valid=False).is_distributed is True


def test_a_finished_run_still_has_a_sample_left(tmp_path: Path) -> None:
    train, valid, test = provider(tmp_path, valid=False)((40, 0, 0))
    assert len(train) == 41
    assert valid is None
    assert test is None


@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
def test_evaluation_goes_round_and_a_full_one_is_a_single_pass(tmp_path: Path) -> None:
    from megatron.core.datasets.utils import Split

    made = provider(tmp_path, valid=True)
    _, valid, _ = made((40, 8, 8), vp_stage=1)
    assert valid.split is Split.valid
    assert len(valid) > 10**6
    _, full, _ = made((40, None, None))
    assert len(full) == 4
