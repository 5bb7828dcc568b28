"""Shards and sequence length against the flags and against the model that --hf-config names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from megatron_flags import args
from toy_runs import (
    VOCABULARY,
    Run,
    random_pairs,
    run_forked,
    sft_train,
    tokenizer_folder,
    vocabulary_hash,
    write_shards,
)

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory, TokenizerInfo
from sft_shards.trainer import compatibility
from sft_shards.trainer.model.hf_config import ModelShape

PAIRS = random_pairs(4, seed=1)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("given", "tensor", "expected"),
    [
        ({}, 1, (120, 128)),
        ({}, 2, (120, 256)),
        ({"make_vocab_size_divisible_by": 64}, 2, (120, 128)),
        ({"make_vocab_size_divisible_by": 1}, 1, (120, 120)),
        ({"vocab_size": 300}, 1, (300, 384)),
        ({"padded_vocab_size": 200}, 1, (120, 200)),
    ],
)
def test_the_padded_vocabulary(tmp_path: Path, given: dict[str, Any], tensor: int, expected: tuple[int, int]) -> None:
    info = ShardDirectory(write_shards(tmp_path, {"train": PAIRS})).manifest.tokenizer
    assert compatibility.model_vocabulary(args(**given), info, tensor, tmp_path) == expected


@pytest.mark.unit
@pytest.mark.parametrize("flag", ["vocab_size", "padded_vocab_size"])
def test_a_vocabulary_that_is_too_small(tmp_path: Path, flag: str) -> None:
    info = ShardDirectory(write_shards(tmp_path, {"train": PAIRS})).manifest.tokenizer
    with pytest.raises(DataError, match=r"119 .*100 is too small"):
        compatibility.model_vocabulary(args(**{flag: 100}), info, 1, tmp_path)


@pytest.mark.unit
def test_the_tokenizer_that_the_user_names(tmp_path: Path) -> None:
    info = ShardDirectory(write_shards(tmp_path / "shards", {"train": PAIRS})).manifest.tokenizer
    same = tokenizer_folder(tmp_path / "same", VOCABULARY)
    swapped = tokenizer_folder(tmp_path / "swapped", {**VOCABULARY, "t50": 51, "t51": 50})
    named = {"tokenizer_type": "HuggingFaceTokenizer"}
    compatibility.check_tokenizer(args(), info, tmp_path)
    compatibility.check_tokenizer(args(**named, tokenizer_model=same), info, tmp_path)
    with pytest.raises(DataError, match=r"not that of --tokenizer-model .*swapped"):
        compatibility.check_tokenizer(args(**named, tokenizer_model=swapped), info, tmp_path)
    with pytest.raises(UsageError, match="cannot be loaded"):
        compatibility.check_tokenizer(args(**named, tokenizer_model=str(tmp_path / "nothing")), info, tmp_path)
    with pytest.raises(UsageError, match="needs --tokenizer-model"):
        compatibility.check_tokenizer(args(**named), info, tmp_path)
    with pytest.raises(UsageError, match="GPT2BPETokenizer cannot be compared"):
        compatibility.check_tokenizer(args(tokenizer_type="GPT2BPETokenizer"), info, tmp_path)


@pytest.mark.unit
def test_the_hash_is_the_one_that_a_manifest_keeps() -> None:
    assert compatibility.vocabulary_hash(VOCABULARY) == vocabulary_hash(VOCABULARY)
    assert compatibility.vocabulary_hash({"b": 1, "a": 0, "é": 2}) == vocabulary_hash({"é": 2, "a": 0, "b": 1})
    spelled = {
        token: number for number, token in enumerate(["\n", "\t", '"', "\\", "", "😀", "\ue000", "a\tb", "10", "9"])
    }
    assert compatibility.vocabulary_hash(spelled) == vocabulary_hash(spelled)
    assert compatibility.vocabulary_hash({}) == vocabulary_hash({})


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48,
    "num_attention_heads": 4, "rms_norm_eps": 1e-5, "vocab_size": 120, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), {"train": random_pairs(4, seed=1)})


def info(shards: Path) -> TokenizerInfo:
    return ShardDirectory(shards).manifest.tokenizer


def shape(path: Path | str = "config.json", **change: Any) -> ModelShape:
    known: dict[str, Any] = {"flags": {}, "vocab_size": 120, "max_positions": 64, "window": None}
    return ModelShape(path=str(path), **{**known, **change})


@pytest.mark.unit
def test_ids_without_a_row(shards: Path) -> None:
    compatibility.check_shards(shape(vocab_size=120), info(shards), shards)
    with pytest.raises(DataError, match=r"ids reach 119 \(toy\), the embedding of config\.json has 119 rows"):
        compatibility.check_shards(shape(vocab_size=119), info(shards), shards)


@pytest.mark.unit
def test_the_tokenizer_beside_the_model(shards: Path, tmp_path: Path) -> None:
    same = tokenizer_folder(tmp_path / "same", VOCABULARY)
    compatibility.check_shards(shape(f"{same}/config.json"), info(shards), shards)
    swapped = tokenizer_folder(tmp_path / "swapped", {**VOCABULARY, "t50": 51, "t51": 50})
    with pytest.raises(DataError, match=r"not that of .*swapped/tokenizer\.json \(120 ids\)"):
        compatibility.check_shards(shape(f"{swapped}/config.json"), info(shards), shards)
    compatibility.check_shards(
        shape(f"{swapped}/shape.json"), info(shards), shards
    )  # a shape of its own, not a model's folder
    (tmp_path / "same/tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be loaded"):
        compatibility.check_shards(shape(f"{same}/config.json"), info(shards), shards)


@pytest.mark.unit
def test_tokens_that_only_the_tokenizers_configuration_adds(shards: Path, tmp_path: Path) -> None:
    """As in folders of older models: tokenizer.json alone has fewer tokens than the loaded tokenizer."""
    folder = Path(tokenizer_folder(tmp_path, {name: number for name, number in VOCABULARY.items() if number < 119}))
    raw = json.loads((folder / "tokenizer_config.json").read_text())
    kept = {
        "content": "t119",
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**raw, "added_tokens_decoder": {"119": kept}}))
    compatibility.check_shards(shape(folder / "config.json"), info(shards), shards)


@pytest.mark.unit
def test_samples_longer_than_the_model_was_trained_for() -> None:
    compatibility.check_length(shape(), 64, stretched=False)
    compatibility.check_length(shape(), 65, stretched=True)
    with pytest.raises(UsageError, match=r"--seq-length 65 is beyond max_position_embeddings 64"):
        compatibility.check_length(shape(), 65, stretched=False)
    compatibility.check_length(shape(window=32), 32, stretched=False)
    with pytest.raises(UsageError, match=r"sliding_window 32 is below --seq-length 33"):
        compatibility.check_length(shape(window=32), 33, stretched=False)


@pytest.mark.unit
@pytest.mark.parametrize(("rows", "tensor", "expected"), [(130, 1, 130), (136, 8, 136), (130, 4, 132), (0, 1, 128)])
def test_the_rows_of_the_checkpoint_are_those_of_the_model(shards: Path, rows: int, tensor: int, expected: int) -> None:
    assert compatibility.model_vocabulary(args(), info(shards), tensor, shards, rows=rows) == (120, expected)


@pytest.mark.megatron
def test_what_is_said_about_the_vocabulary_wins_over_the_model(shards: Path, tmp_path: Path) -> None:
    """A converter may have cut the embedding, or padded it."""
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": 200}))
    flags = ["--seq-length=32", "--train-iters=1", "--lr=1e-3", "--eval-iters=0"]
    said = {"200 rows": [], "128 rows": ["--make-vocab-size-divisible-by=64"], "256 rows": ["--vocab-size=250"]}
    runs = [
        Run(shards=[shards], flags=[*flags, *words], options={"hf_config": str(tmp_path)}) for words in said.values()
    ]
    for rows, output in zip(said, run_forked(tmp_path, runs), strict=True):
        assert f"model vocabulary: {rows} for " in output


def refused(code: int, words: str, *call: object) -> None:
    done = sft_train(*call)
    assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
    assert done.stderr.startswith("sft-train: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.process
def test_the_command_says_it_before_a_worker_is_started(shards: Path, tmp_path: Path) -> None:
    """Without --device cpu the next thing would be the GPU, which is not there."""
    model = tmp_path / "model"
    tokenizer_folder(model, {**VOCABULARY, "t50": 51, "t51": 50})
    refused(2, "cannot read", "--shards", shards, "--hf-config", model)
    (model / "config.json").write_text(json.dumps({**LLAMA, "architectures": ["GPT2LMHeadModel"]}))
    refused(2, "GPT2LMHeadModel is not one of", "--shards", shards, "--hf-config", model)
    (model / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": 100}))
    refused(1, "has 100 rows", "--shards", shards, "--hf-config", model)
    (model / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "run.yaml").write_text("hf-config: model\n")  # found beside the file
    refused(1, "tokenize the data again with", "--shards", shards, "--config", tmp_path / "run.yaml")
    (model / "tokenizer.json").unlink()
    refused(1, "no GPU is visible", "--shards", shards, "--config", tmp_path / "run.yaml")
