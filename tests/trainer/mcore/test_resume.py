"""Killed and resumed is as if nothing had happened: the same samples, the same losses, also on other ranks."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from toy_runs import PLUGIN, TOY_MODEL, Run, losses, random_pairs, run_forked, write_shards

pytestmark = pytest.mark.megatron

STEPS, SAVED = 40, 20
CP2 = "--context-parallel-size=2"


def lines(output: str, first: int) -> dict[int, tuple[str, ...]]:
    """Loss, gradient norm and learning rate of each step from `first` on, as printed."""
    form = r"iteration +(\d+)/.*learning rate: (\S+).*lm loss: (\S+).*grad norm: (\S+)"
    return {int(step): values for step, *values in re.findall(form, output) if int(step) >= first}


def test_forty_steps_are_twenty_a_kill_and_twenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    monkeypatch.setenv("TOY_HOLD", str(SAVED + 4))
    one = write_shards(tmp_path / "a", {"train": random_pairs(60, seed=1), "valid": random_pairs(5, seed=2)}, shards=2)
    two = write_shards(tmp_path / "b", {"train": random_pairs(30, seed=3), "valid": random_pairs(4, seed=4)})
    model = [*TOY_MODEL, "--seq-length=64", "--global-batch-size=4", "--lr=3e-3", f"--train-iters={STEPS}"]
    model += ["--micro-batch-size=2", "--ckpt-format=torch_dist", f"--save-interval={SAVED}", "--eval-interval=100"]
    sharded = [*model, "--use-distributed-optimizer"]

    def run(
        flags: list[str], nproc: int, *, save: str = "", load: str = "", kill: str | None = None, **own: str
    ) -> Run:
        words = [f"--{name}={tmp_path / folder}" for name, folder in (("save", save), ("load", load)) if folder]
        options = {"stage": "held"} if kill else own  # it waits there until it is killed
        return Run(shards=[one, f"{two}:0.5"], flags=[*flags, *words], nproc=nproc, kill=kill, options=options)

    killed = f"iteration       {SAVED + 3}/"
    outputs = run_forked(
        tmp_path,
        [
            run(model, 1),
            run(model, 1, save="plain", kill=killed),
            run(model, 1, load="plain"),
            run(sharded, 2, save="sharded", kill=killed),
            run(sharded, 2, load="sharded"),
            run(sharded, 1, load="sharded"),
            run(model, 2, load="plain"),
            dataclasses.replace(run([*model, CP2], 2, load="plain"), code=2),
            run([*model, CP2], 2, load="plain", evaluate="valid"),
        ],
    )
    straight, first, resumed, sharded_first, sharded_again, fewer_ranks, more_ranks, other_packs, evaluated = outputs
    expected = lines(straight, 1)
    assert list(expected) == list(range(1, STEPS + 1))
    again = lines(resumed, SAVED + 1)
    assert list(again) == list(range(SAVED + 1, STEPS + 1))
    # Megatron's second line after a start shows the mean loss of the first two steps.
    late = {step: expected[step] for step in range(SAVED + 3, STEPS + 1)}
    assert {step: again[step] for step in late} == late
    assert again[SAVED + 1] == expected[SAVED + 1]
    assert again[SAVED + 2][2] == expected[SAVED + 2][2]
    assert re.findall(r"validation loss at .*", resumed) == re.findall(r"validation loss at .*", straight)

    assert "balance: ranks wait for the slowest" in sharded_first
    assert "balance: " not in straight
    curve = losses(straight)
    changed = {"DP 2": sharded_again, "DP 2, then DP 1": fewer_ranks, "DP 1, then DP 2": more_ranks}
    for name, output in changed.items():
        found = losses(output)
        steps = [step for step in late if step in found]
        assert len(steps) == STEPS - SAVED - 2, name
        np.testing.assert_allclose([found[s] for s in steps], [curve[s] for s in steps], rtol=2e-5, err_msg=name)
    np.testing.assert_allclose([losses(sharded_first)[s] for s in range(3, 21)], [curve[s] for s in range(3, 21)], 2e-5)
    # Steps are told apart: the tolerance is far below what another sample or step count would do.
    assert np.abs(np.diff([curve[s] for s in late])).min() > 1e-4
    assert list(lines(first, 1)) == list(range(1, SAVED + 4))
    # Another context-parallel size packs conversations in another way, which matters to training alone.
    assert "this run began with --context-parallel-size 1, and 2 would pack its" in other_packs.splitlines()[-1]
    assert "valid: loss" in evaluated
