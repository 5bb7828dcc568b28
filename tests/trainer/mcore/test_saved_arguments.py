"""A checkpoint's arguments are read, and nothing that its pickle names is run."""

from __future__ import annotations

import argparse
import copyreg
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from toy_runs import random_pairs, sft_train, write_shards

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.mcore import checkpoint_args, compat, saved_arguments

SAVED = argparse.Namespace(num_layers=2, hidden_size=32, padded_vocab_size=128, max_position_embeddings=64)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Enum:
    """A class of somebody else's, with a state."""

    def __init__(self) -> None:
        self.value = 3


@pytest.fixture
def step(tmp_path: Path) -> Path:
    folder = tmp_path / "saved" / "iter_0000007"
    folder.mkdir(parents=True)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


def save(file: Path, state: object, **options: Any) -> None:
    import torch

    file.parent.mkdir(exist_ok=True)
    torch.save(state, file, **options)


def write_pickle(file: Path, text: bytes) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("common/data.pkl", text)


@pytest.mark.megatron
@pytest.mark.parametrize("name", ["common.pt", "mp_rank_00/model_optim_rng.pt", "mp_rank_00_000/model_optim_rng.pt"])
def test_arguments_are_read_beside_whatever_else_is_saved(step: Path, name: str) -> None:
    import torch

    saved = argparse.Namespace(**vars(SAVED), params_dtype=torch.bfloat16, backend=Enum(), none=None, layers=[1, 0])
    model = {"weight": torch.ones(3), "half": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    save(step / name, {"args": saved, "iteration": 7, "model": model, "rng": [{"state": Enum()}], "set": {1}})
    for path, number in ((step.parent, None), (step.parent, 7)):
        found = saved_arguments.read(path, number)
        assert {name: getattr(found, name) for name in vars(SAVED)} == vars(SAVED)
        assert (found.none, found.layers) == (None, [1, 0])
        assert found.params_dtype is saved_arguments.Opaque
        assert isinstance(found.backend, saved_arguments.Opaque)


@pytest.mark.megatron
def test_nothing_in_it_is_run(step: Path, tmp_path: Path) -> None:
    evil = Evil(f"touch {tmp_path}/run")
    for state in (evil, {"args": evil}, {"args": SAVED, "x": [evil]}, {evil: 1}):
        save(step / "common.pt", state)
        try:
            assert saved_arguments.read(step.parent, None) == SAVED
        except UsageError as error:
            assert "holds no arguments" in str(error)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        write_pickle(step / "common.pt", pickle.dumps({"args": SAVED, "x": evil}, protocol=protocol))
        assert saved_arguments.read(step.parent, None) == SAVED
    assert not (tmp_path / "run").exists()


@pytest.mark.megatron
@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'touch run'\ntR.",
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch run'\ntR.",
        b'cbuiltins\neval\n(S\'open("run", "w")\'\ntR.',
        b"\x82\x01.",
        b"cargparse\nArgumentParser\n(S'x'\ntR.",
        b"ios\nsystem\n(S'touch run'\n.",
        b"(S'touch run'\nios\nsystem\n.",
        b"ctorch.serialization\n_get_layout\n(S'x'\ntR.",
    ],
)
def test_hand_made_pickles_run_nothing(
    step: Path, tmp_path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pickle(step / "common.pt", text)
    with pytest.raises((DataError, UsageError)) as error:
        saved_arguments.read(step.parent, None)
    assert "give --hf-config instead" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.megatron
def test_a_registered_extension_is_not_run_either(step: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("os", "system", 0xF0)
    try:
        write_pickle(step / "common.pt", b"\x82\xf0(S'touch run'\ntR.")
        with pytest.raises(UsageError):
            saved_arguments.read(step.parent, None)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not (tmp_path / "run").exists()


@pytest.mark.megatron
def test_arguments_among_the_tensors_are_read(step: Path, tmp_path: Path) -> None:
    """As Megatron from 0.18 on saves them: an object of a torch_dist checkpoint, and no common.pt."""
    import torch
    from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter, save

    common = [{"args": SAVED, "x": Evil(f"touch {tmp_path}/run")}]
    save(
        {"common_state/shard_0_1": common, "rng_state/shard_0_1": [1], "weight": torch.ones(3)},
        storage_writer=FileSystemWriter(step, single_file_per_rank=True),
        planner=DefaultSavePlanner(flatten_state_dict=False),
        no_dist=True,
    )
    assert saved_arguments.read(step.parent, None) == SAVED
    assert not (tmp_path / "run").exists()


@pytest.mark.megatron
@pytest.mark.parametrize("text", [b"", b"x" * 99, b"PK\x03\x04", pickle.dumps({"args": SAVED})])
def test_what_is_no_archive_is_one_line(step: Path, text: bytes) -> None:
    (step / "common.pt").write_bytes(text)
    with pytest.raises(DataError, match=r"common\.pt: not what torch saves .*give --hf-config instead"):
        saved_arguments.read(step.parent, None)


@pytest.mark.megatron
def test_a_pickle_that_is_huge_when_unpacked_is_not_read(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_arguments, "LIMIT", 1000)
    write_pickle(step / "common.pt", pickle.dumps({"args": SAVED, "x": b"0" * 5000}))
    with pytest.raises(DataError, match="a pickle of 5,"):
        saved_arguments.read(step.parent, None)


@pytest.mark.megatron
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_layers": Enum()}, "give no number for num_layers"),
        ({"hidden_size": True}, "give no number for hidden_size"),
        ({"normalization": Enum()}, "--normalization is no plain value"),
        ({"moe_layer_freq": [1, Enum()], "num_experts": 4}, "--moe-layer-freq is no plain value"),
    ],
)
def test_a_shape_of_other_values_is_refused(step: Path, changes: dict[str, Any], words: str) -> None:
    save(step / "common.pt", {"args": argparse.Namespace(**{**vars(SAVED), **changes})})
    with pytest.raises((DataError, UsageError), match=words):
        checkpoint_args.read(compat.parser(), argparse.Namespace(load=str(step.parent), pretrained_checkpoint=None))


@pytest.mark.megatron
@pytest.mark.parametrize("format", ["torch", "torch_dist"])
def test_a_dry_run_runs_nothing_and_names_the_folder(step: Path, tmp_path: Path, format: str) -> None:
    """What Megatron would unpickle at a real start is named; a dry run reads the arguments alone."""
    shards = write_shards(tmp_path / "shards", {"train": random_pairs(4, seed=1)})
    saved = argparse.Namespace(**vars(SAVED), num_attention_heads=4, vocab_size=120, swiglu=True)
    evil = Evil(f"touch {tmp_path}/run")
    save(step / ("mp_rank_00/model_optim_rng.pt" if format == "torch" else "common.pt"), {"args": saved, "x": evil})
    if format == "torch_dist":
        (step / ".metadata").write_bytes(pickle.dumps(evil))
    words = ["--shards", shards, "--device", "cpu", "--dry-run", "--", f"--load={step.parent}", "--use-checkpoint-args"]
    done = sft_train(*words, "--seq-length=32", "--train-iters=1", "--global-batch-size=4", "--lr=1e-3")
    assert not (tmp_path / "run").exists()
    if format == "torch_dist":
        assert done.returncode == 1
        assert "not the index of a checkpoint (it names posix.system" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert f"warning: {step.parent}: Megatron unpickles this checkpoint" in done.stdout
    assert "--num-layers=2" in done.stdout


@pytest.mark.megatron
def test_the_stand_in_takes_everything() -> None:
    found = saved_arguments._Unpickler(io.BytesIO(pickle.dumps([Enum(), Enum]))).load()
    assert isinstance(found[0](1, x=2).append(3), saved_arguments.Opaque)
    assert found[1] is saved_arguments.Opaque
