"""One objective on any layout: the loss curve of 30 steps does not depend on DP, TP, PP or the micro-batch."""

from __future__ import annotations

import re

import numpy as np
import pytest
from toy import TOY_MODEL, random_pairs, sft_train, write_shards

STEPS = 30


def losses(output: str) -> list[float]:
    return [float(value) for value in re.findall(r"lm loss: (\S+)", output)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that all runs share: lengths between 2 and 60 trained tokens, and the same weights to start from.

    The weights come from a checkpoint, because Megatron seeds pipeline stages differently; 64 x TP divides 128, so
    that the padded vocabulary is the same with TP 1 and TP 2.
    """
    folder = tmp_path_factory.mktemp("layouts")
    pairs = random_pairs(40, seed=3, answer=(1, 8)) + random_pairs(40, seed=4, answer=(50, 60))
    write_shards(folder / "shards", {"train": pairs, "valid": random_pairs(5, seed=5)}, shards=2)
    shared = [*TOY_MODEL, "--seq-length=64", "--global-batch-size=8", "--lr=3e-3", "--clip-grad=1.0"]
    first = sft_train("--shards", folder / "shards", "--device", "cpu", "--", *shared, "--train-iters=1", "--lr=0",
                      "--min-lr=0", f"--save={folder / 'start'}")  # fmt: skip
    assert first.returncode == 0, first.stderr
    (folder / "mean.yaml").write_text("calculate-per-token-loss: false\n")
    return ["--shards", folder / "shards", "--device", "cpu", "--config", folder / "mean.yaml", "--", *shared,
            f"--train-iters={STEPS}", f"--load={folder / 'start'}", "--finetune"]  # fmt: skip


def curve(base: list[object], *flags: str, nproc: int = 1, per_token: bool = True) -> list[float]:
    words = list(base)
    if per_token:
        at = words.index("--config")
        del words[at : at + 2]
    done = sft_train(*words[:4], "--nproc", nproc, *words[4:], *flags)
    assert done.returncode == 0, done.stderr
    assert "128 rows for 120 ids" in done.stderr
    found = losses(done.stdout)
    assert len(found) == STEPS
    return found


def test_the_curve_is_the_same_on_every_layout(base: list[object]) -> None:
    one = curve(base)
    assert one[-1] < one[0] - 0.1, "it learns"
    layouts = {
        "DP 2": curve(base, "--micro-batch-size=2", nproc=2),
        "TP 2": curve(base, "--tensor-model-parallel-size=2", nproc=2),
        "PP 2": curve(base, "--pipeline-model-parallel-size=2", nproc=2),
    }
    for name, found in layouts.items():
        np.testing.assert_allclose(found, one, rtol=2e-5, err_msg=name)
    # What the test would miss if trained lengths were alike: a mean per micro-batch is another objective.
    averaged = curve(base, per_token=False)
    assert np.abs(np.array(averaged) - np.array(one)).max() > 1e-3
