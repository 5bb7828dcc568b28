"""A model folder is checked by headers, and whatever is wrong with it is one line that names the tensor or the file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import hf_folders
import pytest
import torch

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.model import hf_config
from sft_shards.trainer.model.folder import ModelFolder
from sft_shards.trainer.model.tensor_map import TensorMap

pytestmark = pytest.mark.unit


def check(folder: Path) -> ModelFolder:
    """What `--model` does before a model is built."""
    found = ModelFolder.open(folder)
    found.check(TensorMap(hf_config.read(str(folder))))
    return found


def tensors(**change: Any) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in hf_folders.shapes(**change).items()}


@pytest.mark.parametrize("files", [1, 3])
def test_a_whole_folder(tmp_path: Path, files: int) -> None:
    found = check(hf_folders.write(tmp_path / "model", files=files))
    assert found.dtypes == ("BF16",)
    assert found.bytes == 2 * sum(torch.zeros(shape).numel() for shape in hf_folders.shapes().values())


def test_rows_and_columns_as_they_stand(tmp_path: Path) -> None:
    whole = {name: torch.randn(shape) for name, shape in hf_folders.shapes().items()}
    found = check(hf_folders.write(tmp_path / "model", tensors=whole, files=2))
    down = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(found.rows(down, 2, 7, slice(3, 9)), whole[down][2:7, 3:9])
    assert torch.equal(found.rows("model.norm.weight", 1, 4), whole["model.norm.weight"][1:4])


def test_what_older_files_hold_and_follows_from_the_configuration(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    check(hf_folders.write(tmp_path / "model", tensors={**tensors(), **extra}))


def test_an_output_layer_beside_tied_embeddings_is_let_pass(tmp_path: Path) -> None:
    whole = {**tensors(tie_word_embeddings=True), "lm_head.weight": torch.zeros(120, 8)}
    check(hf_folders.write(tmp_path / "model", tensors=whole, tie_word_embeddings=True))


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("without", "more", "words"),
    [
        ([Q], {}, f"{Q} is missing"),
        ([Q, "model.norm.weight", "lm_head.weight"], {}, "and 1 more are missing"),
        ([], {"model.layers.0.self_attn.q_proj.bias": torch.zeros(8)}, "q_proj.bias is a tensor that config.json does not"),
        ([], {"model.layers.0.self_attn.q_norm.weight": torch.zeros(2)}, "q_norm.weight is a tensor that config.json"),
        ([], {"model.layers.2.mlp.up_proj.weight": torch.zeros(12, 8)}, "layers.2.mlp.up_proj.weight is a tensor that"),
        ([], {f"{Q}_scale_inv": torch.zeros(1, 1)}, "weight_scale_inv belongs to quantised weights"),
        ([], {Q.replace("weight", "qweight"): torch.zeros(1, 1)}, "belongs to quantised weights"),
        ([], {"vision_tower.weight": torch.zeros(2)}, "vision_tower.weight is a tensor that config.json does not"),
        ([], {Q: torch.zeros(9, 8)}, f"{Q} is [9, 8], by config.json it is [8, 8]"),
        ([], {Q: torch.zeros(8, 9)}, f"{Q} is [8, 9], by config.json it is [8, 8]"),
        ([], {Q: torch.zeros(64)}, f"{Q} is [64], by config.json it is [8, 8]"),
        ([], {"model.embed_tokens.weight": torch.zeros(119, 8)}, "embed_tokens.weight is [119, 8], by config.json it is [120"),
        ([], {Q: torch.zeros(8, 8, dtype=torch.float64)}, f"{Q} is F64, weights are taken in F32, BF16, F16"),
        ([], {Q: torch.zeros(8, 8, dtype=torch.float8_e4m3fn)}, f"{Q} is F8_E4M3"),
        ([], {Q: torch.zeros(8, 8, dtype=torch.int8)}, f"{Q} is I8"),
    ],
)  # fmt: skip
def test_every_tensor_is_accounted_for(tmp_path: Path, without: list[str], more: dict[str, Any], words: str) -> None:
    whole = {name: value for name, value in {**tensors(), **more}.items() if name not in without}
    folder = hf_folders.write(tmp_path / "model", tensors=whole)
    with pytest.raises(DataError) as error:
        check(folder)
    assert words in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_hold_no_safetensors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        ModelFolder.open(tmp_path / "none")
    (tmp_path / "old").mkdir()
    with pytest.raises(UsageError, match=r"neither model\.safetensors nor .* in it; name the folder"):
        ModelFolder.open(tmp_path / "old")
    (tmp_path / "old/pytorch_model.bin").touch()
    with pytest.raises(UsageError, match="save the model again as safetensors"):
        ModelFolder.open(tmp_path / "old")


@pytest.mark.parametrize(
    ("name", "words"),
    [("../model.safetensors", "outside the folder"), ("/etc/passwd", "outside the folder"), ("gone.safetensors", "it is not there")],
)  # fmt: skip
def test_an_index_that_names_other_files(tmp_path: Path, name: str, words: str) -> None:
    folder = hf_folders.write(tmp_path / "model", files=2)
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"][Q] = name
    index.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=words):
        check(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "\xff"])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    folder = hf_folders.write(tmp_path / "model", files=2)
    (folder / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="no weight_map of names"):
        check(folder)


def test_an_index_and_files_that_disagree(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", files=2)
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    held = raw["weight_map"][Q]
    other = next(name for name in raw["weight_map"].values() if name != held)
    index.write_text(json.dumps({"weight_map": {**raw["weight_map"], Q: other}}))
    with pytest.raises(DataError, match=r"index\.json"):
        check(folder)
    index.write_text(json.dumps({"weight_map": {**raw["weight_map"], "model.more": other}}))
    with pytest.raises(DataError, match=r"model\.more is not in it"):
        check(folder)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_file(tmp_path: Path, kept: int) -> None:
    folder = hf_folders.write(tmp_path / "model", files=2)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        check(folder)


def test_any_byte_of_a_header_that_is_flipped(tmp_path: Path) -> None:
    """One bit of each byte in turn, so that names, shapes, dtypes, offsets and the length all have their day."""
    folder = hf_folders.write(tmp_path / "model")
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    length = 8 + int.from_bytes(raw[:8], "little")
    text = raw[:length].rstrip()
    rng = random.Random(1)
    passed = []
    tensors = TensorMap(hf_config.read(str(folder)))
    for at in range(len(text)):
        changed = bytearray(raw)
        changed[at] ^= 1 << rng.randrange(7)
        file.write_bytes(bytes(changed))
        try:
            ModelFolder.open(folder).check(tensors)
        except (DataError, UsageError) as error:
            assert "\n" not in str(error)
            continue
        passed.append(bytes(changed[max(0, at - 12) : at + 12]))
    # JSON's white space may change, and the note `{"format": "pt"}` says nothing about weights.
    assert not [
        span for span in passed if b"__metadata__" not in span and b"format" not in span and b'"pt"' not in span
    ], passed
