"""What `pretrain()` gets when it asks for data sets."""

from __future__ import annotations

from typing import Any

import pytest

from sft_shards.trainer.mcore.dataset_provider import DatasetProvider

pytestmark = pytest.mark.megatron


class Stage:
    """Says what it was asked for."""

    def train_samples(self, count: int) -> Any:
        return range(count)

    def balanced(self, samples: Any, *, consumed: int) -> Any:
        return list(samples)[consumed:]

    def eval_samples(self, *, period: int, count: int) -> Any:
        class Samples(list):
            split = None

        return Samples([period, count])


def test_every_tensor_rank_builds_its_own() -> None:
    assert DatasetProvider(stage=Stage(), eval_pass=0).is_distributed is True


def test_a_finished_run_still_has_a_sample_left() -> None:
    train, valid, test = DatasetProvider(stage=Stage(), eval_pass=0)((40, 0, 0))
    assert len(train) == 41
    assert valid is None
    assert test is None


def test_training_samples_are_dealt_from_where_the_run_goes_on() -> None:
    provider = DatasetProvider(stage=Stage(), eval_pass=0, consumed=lambda: 12)
    assert provider((40, 0, 0))[0] == list(range(12, 41))


@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
def test_evaluation_goes_round_and_a_full_one_is_a_single_pass() -> None:
    from megatron.core.datasets.utils import Split

    made = DatasetProvider(stage=Stage(), eval_pass=4)
    _, valid, _ = made((40, 8, 8), vp_stage=1)
    assert valid.split is Split.valid
    assert valid[0] == 4
    assert valid[1] > 10**6
    _, full, _ = made((40, None, None))
    assert full == [4, 4]
