"""Export: the bits of the checkpoint, one folder that is whole or not there, and a line for whatever is wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import hf_folders
import pytest
import torch
import torch_checkpoints
from safetensors.torch import load_file

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer import cli
from sft_shards.trainer.model import export_folder, safetensors_writer
from sft_shards.trainer.model.checkpoint import MEGATRON_PLAN, Checkpoint
from sft_shards.trainer.model.export import export

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `model`, and its checkpoint `out` with a padded vocabulary and an optimizer."""
    root = tmp_path_factory.mktemp("export")
    model = hf_folders.write(root / "model")
    tensors = torch_checkpoints.megatron(load_file(model / "model.safetensors"), padded=128)
    optimizer = {f"optimizer.state.exp_avg.{name}": value.float() for name, value in tensors.items()}
    torch_checkpoints.write(root / "out", {**tensors, **optimizer, "rng_state": torch.zeros(2)})
    torch_checkpoints.with_record(root / "out", model)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` to damage."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def same(ours: Path, theirs: Path) -> bool:
    a, b = bits(ours), bits(theirs)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_the_same_tensors_come_back(made: Path, tmp_path: Path) -> None:
    done = export(made / "out", tmp_path / "hf")
    assert same(tmp_path / "hf", made / "model")
    assert (tmp_path / "hf/model.safetensors").read_bytes() == (made / "model/model.safetensors").read_bytes()
    assert done.tensors == len(hf_folders.shapes())
    assert sorted(os.listdir(tmp_path / "hf")) == ["config.json", "generation_config.json", "model.safetensors"]
    assert json.loads((tmp_path / "hf/generation_config.json").read_text())["eos_token_id"] == [0, 5]
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config == {**hf_folders.TINY, "dtype": "bfloat16"}


def test_in_several_files_with_an_index(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_writer, "FILE_BYTES", 1500)
    export(made / "out", tmp_path / "hf")
    assert same(tmp_path / "hf", made / "model")
    index = json.loads((tmp_path / "hf/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in (tmp_path / "hf").glob("*.safetensors")}
    assert len(set(index["weight_map"].values())) > 2
    assert all(name in load_file(tmp_path / "hf" / file) for name, file in index["weight_map"].items())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in bits(tmp_path / "hf").values())


def test_in_another_dtype(made: Path, tmp_path: Path) -> None:
    export(made / "out", tmp_path / "hf", dtype="fp32")
    wide = bits(tmp_path / "hf")
    assert all(torch.equal(wide[name], value.float()) for name, value in bits(made / "model").items())
    assert json.loads((tmp_path / "hf/config.json").read_text())["dtype"] == "float32"


def test_the_step_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in bits(root / "model").items()}
    torch_checkpoints.write(root / "out", torch_checkpoints.megatron(zeros), step=7)
    export(root / "out", tmp_path / "last")
    assert not any(value.any() for value in bits(tmp_path / "last").values())
    export(root / "out", tmp_path / "first", step=1)
    assert same(tmp_path / "first", root / "model")
    export(root / "out/iter_0000001", tmp_path / "named")
    assert same(tmp_path / "named", root / "model")
    with pytest.raises(UsageError, match=r"no iter_0000003 in it; steps: 1, 7"):
        export(root / "out", tmp_path / "none", step=3)


def test_a_checkpoint_from_elsewhere_takes_the_models_folder(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "out/hf")
    with pytest.raises(UsageError, match=r"no sft\.json there.* give --model DIR"):
        export(root / "out", tmp_path / "hf")
    export(root / "out", tmp_path / "hf", model=str(root / "model"))
    assert same(tmp_path / "hf", root / "model")


def test_the_command_says_what_it_wrote(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["export", str(made / "out"), "--output", str(tmp_path / "hf")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/hf: 21 tensors, 0.00 GB in ")
    assert cli.status(["export", str(made / "out"), "--output", str(tmp_path / "hf")]) == 2
    assert (
        capsys.readouterr().err
        == f"sft-train: --output {tmp_path}/hf: is there already; name another one, or remove it\n"
    )
    assert cli.status(["export", str(made / "out"), "--output", str(tmp_path / "hf"), "--", "--bf16"]) == 2
    assert "export takes no Megatron flags" in capsys.readouterr().err


def test_outputs_that_are_refused(root: Path, tmp_path: Path) -> None:
    before = bits(root / "model")
    for target, words in (
        (root / "model", "is the folder that is read"),
        (root / "out/hf", "is the folder that is read"),
        (root / "out/iter_0000001", "is the folder that is read"),
        (tmp_path / "no/such", "is no folder; make it first"),
        (root, "is there already"),
    ):
        with pytest.raises(UsageError, match=words):
            export(root / "out", target, model=str(root / "model") if target == root / "model" else None)
    assert all(torch.equal(value, before[name]) for name, value in bits(root / "model").items())
    (tmp_path / "empty").mkdir()
    export(root / "out", tmp_path / "empty")
    assert same(tmp_path / "empty", root / "model")


def test_merge_is_for_adapters(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds all weights, and no adapters to merge"):
        export(made / "out", tmp_path / "hf", merge=True)


def test_checkpoints_that_are_none_or_of_another_format(root: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(UsageError) as error:
            export(path, tmp_path / "hf")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such folder" in refused(tmp_path / "none")
    assert "no checkpoint there" in refused(root / "model")
    (root / "out/iter_0000001/mp_rank_00").mkdir()
    said = refused(root / "out")
    assert f"--ckpt-format torch --load {root}/out --finetune --ckpt-convert-format torch_dist" in said
    assert f"--ckpt-convert-save {root}/out-torch_dist. " in said
    assert f"export {root}/out-torch_dist/torch_dist --output DIR --model {root}/out/hf" in said, (
        "where Megatron puts it"
    )
    (root / "out/iter_0000001/mp_rank_00").rmdir()
    (root / "out/iter_0000001/metadata.json").write_text('{"sharded_backend": "fsdp_dtensor"}')
    assert "of the format fsdp_dtensor" in refused(root / "out")


def damaged(root: Path, tmp_path: Path) -> str:
    """What is said about a damaged checkpoint, of which nothing may be left behind."""
    with pytest.raises(DataError) as error:
        export(root / "out", tmp_path / "hf")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "hf").exists()
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]
    return str(error.value)


def test_damaged_checkpoints(root: Path, tmp_path: Path) -> None:
    step = root / "out/iter_0000001"
    (data,) = step.glob("*.distcp")
    whole, index = data.read_bytes(), (step / ".metadata").read_bytes()
    data.write_bytes(whole[:3000])
    assert "cannot be read" in damaged(root, tmp_path)
    data.unlink()
    assert "cannot be read" in damaged(root, tmp_path)
    data.write_bytes(whole)
    (step / ".metadata").write_bytes(index[: len(index) // 2])
    assert "not the index of a checkpoint" in damaged(root, tmp_path)
    (step / ".metadata").unlink()
    assert "no .metadata in it, so the save was not finished" in damaged(root, tmp_path)


def test_an_index_that_would_run_something(root: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harmed"),)

    (root / "out/iter_0000001/.metadata").write_bytes(pickle.dumps(Harm()))
    assert "it names posix.mkdir, which no index needs" in damaged(root, tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_an_index_with_the_plan_of_an_older_megatron(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 0.15 it names a class of Megatron's, which is not imported."""
    module, name = MEGATRON_PLAN
    plan = type(name, (), {"__module__": module})
    file = root / "out/iter_0000001/.metadata"
    metadata = pickle.loads(file.read_bytes())
    metadata.planner_data["plan"] = plan()
    with monkeypatch.context() as there:
        there.setitem(sys.modules, module, types.SimpleNamespace(**{name: plan}))
        file.write_bytes(pickle.dumps(metadata))
    monkeypatch.setitem(sys.modules, module, None)  # importing it would fail
    export(root / "out", tmp_path / "hf")
    assert same(tmp_path / "hf", root / "model")


def test_an_index_that_names_a_file_elsewhere(root: Path, tmp_path: Path) -> None:
    file = root / "out/iter_0000001/.metadata"
    metadata = pickle.loads(file.read_bytes())
    for info in metadata.storage_data.values():
        object.__setattr__(info, "relative_path", "../elsewhere")
    file.write_bytes(pickle.dumps(metadata))
    assert "lies in '../elsewhere'" in damaged(root, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder.layers.0.mlp.linear_fc2.weight": None}, "nothing in it for model.layers.0.mlp.down_proj.weight"),
        ({"decoder.layers.0.mlp.linear_fc2.weight": (8, 13)}, "linear_fc2.weight is [8, 13], by"),
        ({"decoder.layers.0.self_attention.linear_qkv.bias": (16,)}, "linear_qkv.bias, which"),
        ({"decoder.layers.2.mlp.linear_fc2.weight": (8, 12)}, "holds model.layers.2.mlp.down_proj.weight, which by"),
        ({"embedding.word_embeddings.weight": (119, 8)}, "word_embeddings.weight is [119, 8], by"),
        ({"decoder.final_layernorm.weight": (9,)}, "final_layernorm.weight is [9], by"),
    ],
)  # fmt: skip
def test_another_model_than_the_configuration_tells_of(
    made: Path, tmp_path: Path, change: dict[str, tuple[int, ...] | None], words: str
) -> None:
    tensors = torch_checkpoints.megatron(bits(made / "model"))
    for name, shape in change.items():
        if shape is None:
            del tensors[name]
        else:
            tensors[name] = torch.zeros(shape)
    torch_checkpoints.write(tmp_path / "out", tensors)
    torch_checkpoints.with_record(tmp_path / "out", made / "model")
    assert words in damaged(tmp_path, tmp_path)


def test_a_full_disk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert "the disk is full; nothing was kept" in damaged(made, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
        assert "0.0 GB free, the model takes" in damaged(made, tmp_path)


def test_config_comes_last(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    write_json = export_folder.write_json

    def noted(path: Path, value: Any) -> None:
        seen.append(sorted(os.listdir(Path(path).parent)))
        write_json(path, value)

    monkeypatch.setattr(export_folder, "write_json", noted)
    export(made / "out", tmp_path / "hf")
    assert seen[-1] == ["generation_config.json", "model.safetensors"]


def test_two_at_once_do_not_mix(made: Path, tmp_path: Path) -> None:
    with export_folder.new_folder(tmp_path / "hf"), pytest.raises(DataError, match="another export is writing there"):
        export(made / "out", tmp_path / "hf")


def test_a_part_of_a_tensor_that_is_missing(made: Path) -> None:
    checkpoint = Checkpoint.open(made / "out")
    name = "decoder.final_layernorm.weight"
    saved = checkpoint.tensors[name]
    object.__setattr__(saved, "chunks", ())
    with pytest.raises(DataError, match=r"parts of decoder\.final_layernorm\.weight are missing"):
        checkpoint.read(name)
