"""The device that a check runs on: the CPU wherever tests run, and the machine's GPUs under `make gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hf_folders
import pytest
from toy_runs import random_pairs, write_shards

from sft_shards.trainer.launch import gpus

NO_GPU = "torch finds no GPU on this machine"
SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "model_type": "llama",
}  # fmt: skip
WIDE = {**SHAPE, "hidden_size": 256, "intermediate_size": 384}
"""Heads of 64 channels, which every kernel takes."""


@pytest.fixture(
    params=[pytest.param("cpu", marks=pytest.mark.megatron), pytest.param("gpu", marks=pytest.mark.gpu)],
    scope="session",
)
def device(request: pytest.FixtureRequest) -> str:
    """`cpu` or `gpu`, as `--device` takes it."""
    if request.param == "gpu" and not gpus.count():
        pytest.skip(NO_GPU)
    return str(request.param)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of 5 to 52 positions."""
    pairs = random_pairs(14, seed=3, answer=(1, 8)) + random_pairs(14, seed=4, answer=(20, 40))
    return write_shards(tmp_path_factory.mktemp("gpu") / "shards", {"train": pairs}, shards=2)


def model_folder(folder: Path, shape: dict[str, Any]) -> Path:
    """A Llama of random weights as a model folder: the same start on every layout and device."""
    import torch

    torch.manual_seed(0)
    tensors = {
        name: torch.ones(size) if len(size) == 1 else torch.randn(size) * 0.08
        for name, size in hf_folders.shapes(**shape).items()
    }
    return hf_folders.write(folder, tensors=tensors, **shape)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return model_folder(tmp_path_factory.mktemp("gpu") / "base", SHAPE)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that every kernel of attention takes."""
    return model_folder(tmp_path_factory.mktemp("gpu") / "wide", WIDE)
