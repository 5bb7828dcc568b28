"""From a model folder through training to a model folder: transformers answers what was trained, and stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_calls import steps, train
from toy_runs import STOP, Pair, sft_train, turn, write_shards


@pytest.fixture(scope="module")
def conversations() -> list[Pair]:
    rng = np.random.default_rng(11)

    def words(low: int, high: int) -> list[int]:
        return [int(word) for word in rng.integers(10, 120, rng.integers(low, high))]

    return [turn(words(3, 8), words(2, 10)) for _ in range(6)]


def opened(folder: Path) -> Any:
    """The exported model, by transformers, on the CPU."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def said(model: Any, pair: Pair) -> list[int]:
    """What the model says greedily, until its stop token."""
    import torch

    ids, mask = pair
    prompt = list(ids[: list(mask).index(1)])
    answer: list[int] = []
    while len(answer) < len(ids) and answer[-1:] != [STOP]:
        with torch.no_grad():
            answer.append(int(model(torch.tensor([prompt + answer])).logits[0, -1].argmax()))
    return answer


def loss(model: Any, pairs: list[Pair]) -> float:
    """The mean loss of the trained tokens, by transformers."""
    import torch
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    for ids, mask in pairs:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1]
        carries = torch.tensor(mask[1:]) == 1
        total += float(cross_entropy(logits[carries], torch.tensor(ids[1:])[carries], reduction="sum"))
        count += int(carries.sum())
    return total / count


def tuned(shards: Path, base: Path, folder: Path, device: str, *flags: str, lora: tuple[object, ...] = ()) -> float:
    """Train, and export to `folder / "out"`; the loss of the last step."""
    words = [*flags, "--min-lr=1e-4", "--clip-grad=1.0", "--global-batch-size=2", f"--save={folder / 'saved'}"]
    output = train(shards, base, device, *words, options=(*lora, "--cache-dir", folder / "cache"))
    merge = ("--merge",) if lora else ()
    exported = sft_train("export", folder / "saved", "--output", folder / "out", *merge)
    assert exported.returncode == 0, exported.stderr
    return float(steps(output)[max(steps(output))][0])


def test_it_answers_and_stops(base: Path, tmp_path: Path, device: str, conversations: list[Pair]) -> None:
    shards = write_shards(tmp_path / "shards", {"train": conversations})
    assert tuned(shards, base, tmp_path, device, "--train-iters=40", "--lr=1e-2") < 0.1
    model, before = opened(tmp_path / "out"), opened(base)
    for ids, mask in conversations:
        assert said(model, (ids, mask)) == list(ids[list(mask).index(1) :])
    assert any(said(before, pair) != list(pair[0][list(pair[1]).index(1) :]) for pair in conversations)


def test_adapters_are_merged_into_what_was_trained(
    base: Path, tmp_path: Path, device: str, conversations: list[Pair]
) -> None:
    shards = write_shards(tmp_path / "shards", {"train": conversations})
    flags = ("--train-iters=40", "--lr=2e-2")
    last = tuned(shards, base, tmp_path, device, *flags, lora=("--lora-rank", 16))
    assert last < 0.5 * loss(opened(base), conversations)
    assert loss(opened(tmp_path / "out"), conversations) == pytest.approx(last, rel=0.05)
