"""Where the weights come from is decided once, and nothing is taken for granted: every combination that is unclear is refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import hf_folders
import pytest

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.model import hf_config
from sft_shards.trainer.model.start import Start, choose

pytestmark = pytest.mark.unit


def start(model: Path | None = None, *, random: bool = False, **flags: Any) -> Start:
    args = Namespace(**{"load": None, "pretrained_checkpoint": None, "bf16": False, "finetune": False, **flags})
    shape = hf_config.read(str(model)) if model is not None else None
    return choose(model=str(model) if model else None, random=random, args=args, shape=shape, rows=120)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return hf_folders.write(tmp_path / "model", files=2)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/latest_checkpointed_iteration.txt").write_text("3")
    return str(tmp_path / "saved")


def test_a_model_folder(model: Path) -> None:
    found = start(model)
    assert found.folder is not None
    assert f"weights: {model} (21 tensors, 0.00 GB, BF16)" in found.summary


def test_a_first_start_of_a_job_that_will_be_resumed(model: Path, tmp_path: Path) -> None:
    """--load and --save name one folder from the first call on; it is empty then."""
    assert start(model, load=str(tmp_path / "out")).folder is not None
    assert "RANDOM" in start(random=True, load=str(tmp_path / "out")).summary


def test_a_checkpoint_wins_and_nothing_is_read(model: Path, saved: str) -> None:
    (model / "model-00001-of-00002.safetensors").unlink()
    found = start(model, load=saved)
    assert found.folder is None
    assert found.summary == f"weights: checkpoint in {saved} (resumed)"
    assert start(random=True, load=saved).summary == found.summary
    assert start(load=saved, pretrained_checkpoint="/none").summary == found.summary
    assert "(its weights)" in start(load=saved, finetune=True).summary


def test_a_pretrained_checkpoint(saved: str, tmp_path: Path) -> None:
    assert saved in start(pretrained_checkpoint=saved).summary
    assert saved in start(pretrained_checkpoint=saved, load=str(tmp_path / "out")).summary


def test_what_is_rounded_is_said(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "wide", dtype="float32")
    assert "rounded to BF16" in start(folder, bf16=True).summary
    assert "rounded to" not in start(folder).summary


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "nothing says where the weights come from"),
        ({"load": "nowhere"}, "--load nowhere: no checkpoint there"),
        ({"pretrained_checkpoint": "nowhere"}, "--pretrained-checkpoint nowhere: no checkpoint there"),
        ({"pretrained_checkpoint": "nowhere", "load": "out"}, "--pretrained-checkpoint nowhere: no checkpoint there"),
        ({"pretrained_checkpoint": "base", "random": True}, "both say the start"),
    ],
)
def test_starts_that_nobody_asked_for(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        start(**flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"random": True}, "--model and --random-weights both say the start"),
        ({"pretrained_checkpoint": "base"}, "--model and --pretrained-checkpoint both say the start"),
        ({"use_megatron_fsdp": True}, "--use-megatron-fsdp does not go with --model"),
        ({"use_custom_fsdp": True}, "--use-custom-fsdp does not go with --model"),
        ({"use_torch_fsdp2": True}, "--use-torch-fsdp2 does not go with --model"),
        ({"fp8_param_gather": True}, "--fp8-param-gather does not go with --model"),
        ({"init_model_with_meta_device": True}, "--init-model-with-meta-device does not go with --model"),
        ({"moe_mlp_glu_interleave_size": 32}, "--moe-mlp-glu-interleave-size does not go with --model"),
        ({"perform_initialization": False}, "--no-initialization does not go with --model"),
    ],
)
def test_what_does_not_go_with_a_model(model: Path, flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as error:
        start(model, **flags)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_folder_is_found_before_anything_starts(model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataError, match="it is not there; fetch the model again"):
        start(model)
