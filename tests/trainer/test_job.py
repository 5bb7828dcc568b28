"""What one call asks for, on its way to the workers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.job import Job, parse_epochs

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("bad", ["0", "-1", "three", "1/0", "nan", "inf", ""])
def test_epochs(bad: str) -> None:
    assert parse_epochs("0.5") == Fraction(1, 2)
    with pytest.raises(UsageError, match="--epochs"):
        parse_epochs(bad)


def test_the_workers_get_the_same_job() -> None:
    job = Job(
        shards=("a", "b:0.3"), epochs="1/3", config={"lr": 1e-3, "swiglu": True, "data-path": ["x", 1]},
        flags=("--save", "café"), hf_config="model",
    )  # fmt: skip
    assert Job.loads(job.dumps()) == job
    assert "\n" not in job.dumps()


def test_a_chunk_of_no_position_is_refused_wherever_it_was_given() -> None:
    with pytest.raises(UsageError, match="--loss-chunk 0: a chunk has at least 1 position"):
        Job(shards=("a",), loss_chunk=0)
