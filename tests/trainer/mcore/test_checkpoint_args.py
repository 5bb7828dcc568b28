"""The model's shape from a checkpoint: what Megatron saves is what the next run gets, without naming it again."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from toy_runs import Run, losses, random_pairs, run_forked, write_shards

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.mcore import checkpoint_args, flags

pytestmark = pytest.mark.megatron

SHAPE = [
    "--num-layers=2", "--hidden-size=32", "--num-attention-heads=4", "--group-query-attention", "--num-query-groups=2",
    "--position-embedding-type=rope", "--rotary-base=700", "--use-rope-scaling", "--rope-scaling-factor=4",
    "--swiglu", "--normalization=RMSNorm", "--norm-epsilon=1e-2", "--disable-bias-linear", "--qk-layernorm",
    "--make-vocab-size-divisible-by=64", "--num-experts=4", "--moe-layer-freq=[0,1]", "--moe-router-topk=2",
    "--moe-ffn-hidden-size=24", "--moe-router-pre-softmax",
]  # fmt: skip
RUN = ["--seq-length=32", "--global-batch-size=4", "--lr=1e-2", "--log-interval=1", "--lr-decay-style=constant"]


def test_the_next_run_has_the_same_model(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(20, seed=1)})
    saved = str(tmp_path / "saved")
    again = [*RUN, "--train-iters=4", f"--load={saved}", "--override-opt-param-scheduler"]
    from_checkpoint = [*again, "--use-checkpoint-args"]
    model = str(Path(__file__).parents[3] / "configs/models/qwen3-8b.json")
    runs = [
        Run(shards=[shards], flags=[*SHAPE, *RUN, "--train-iters=2", f"--save={saved}"]),
        Run(shards=[shards], flags=[*SHAPE, *again]),
        Run(shards=[shards], flags=from_checkpoint),
        Run(shards=[shards], flags=[*from_checkpoint, "--norm-epsilon=1e-5"], code=2),
        Run(shards=[shards], flags=[*RUN, "--train-iters=1", "--use-checkpoint-args", f"--load={tmp_path}"], code=2),
        Run(shards=[shards], flags=[*RUN, "--train-iters=1", "--use-checkpoint-args"], code=2),
        Run(shards=[shards], flags=from_checkpoint, options={"hf_config": model}, code=2),
    ]
    output = run_forked(tmp_path, runs)
    assert sorted(losses(output[1])) == [3, 4]
    assert losses(output[2]) == losses(output[1])
    said = [text.splitlines()[-1] for text in output[3:]]
    assert f"after --: --norm-epsilon 1e-05 contradicts {saved}, by which --norm-epsilon is 0.01" in said[0]
    assert f"--load {tmp_path}: no checkpoint there" in said[1]
    assert "--use-checkpoint-args needs --load DIR" in said[2]
    assert "--hf-config and --use-checkpoint-args both say" in said[3]


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    args = argparse.Namespace(load=None, pretrained_checkpoint=str(tmp_path))
    with pytest.raises(UsageError, match=r"--pretrained-checkpoint .*: no checkpoint there"):
        checkpoint_args.read(flags.Parser(), args)
