"""Shards against each other, against the call and against the model."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from toy import VOCABULARY, random_pairs, vocabulary_hash, write_shards

from formats.errors import DataError, UsageError
from formats.shards import ShardDirectory
from trainer import checks

PAIRS = random_pairs(4, seed=1)


def test_weights(tmp_path: Path) -> None:
    assert checks.parse_shards("data") == ("data", 1)
    assert checks.parse_shards("data:1") == checks.parse_shards("data:1.0") == ("data", 1)
    assert checks.parse_shards("a:b:0.3") == ("a:b", Fraction(3, 10))
    assert checks.parse_shards("data:1/3") == ("data", Fraction(1, 3))
    assert checks.parse_shards("s3:data") == ("s3:data", 1)
    for weight in ("0", "-1", "0.0"):
        with pytest.raises(UsageError, match="above 0"):
            checks.parse_shards(f"data:{weight}")
    odd = tmp_path / "data:2"
    odd.mkdir()
    assert checks.parse_shards(str(odd)) == (str(odd), 1)


@pytest.mark.parametrize("bad", ["0", "-1", "three", "1/0", "nan", "inf", ""])
def test_epochs(bad: str) -> None:
    assert checks.parse_epochs("0.5") == Fraction(1, 2)
    with pytest.raises(UsageError, match="--epochs"):
        checks.parse_epochs(bad)


def test_names_are_as_short_as_they_can_be() -> None:
    assert checks.short_names([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert checks.short_names([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]
    assert checks.short_names([Path("x/a"), Path("x/a"), Path("b")]) == ["a#1", "a#2", "b"]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    a = write_shards(tmp_path / "a", {"train": PAIRS})
    b = write_shards(tmp_path / "b", {"train": PAIRS}, vocabulary={f"x{i}": i for i in range(120)}, name="other")
    assert len(checks.open_shards([str(a), str(a)])) == 2
    with pytest.raises(DataError, match=r"tokenized with other, .* with toy"):
        checks.open_shards([str(a), str(b)])


@pytest.mark.parametrize(("ids", "word"), [({"eos": 120}, "EOS id 120"), ({"pad": -1}, "padding id -1")])
def test_ids_outside_the_vocabulary(tmp_path: Path, ids: dict[str, int], word: str) -> None:
    path = write_shards(tmp_path, {"train": PAIRS}, **ids)
    with pytest.raises(DataError, match=word):
        checks.open_shards([str(path)])


def test_no_train_split(tmp_path: Path) -> None:
    path = write_shards(tmp_path, {"valid": PAIRS})
    with pytest.raises(DataError, match="train split is empty"):
        checks.open_shards([str(path)])


def args(**given: Any) -> argparse.Namespace:
    known = {
        "num_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "seq_length": 16, "train_iters": 3,
        "train_samples": None, "lr": 0.1, "context_parallel_size": 1, "tensor_model_parallel_size": 1,
        "pipeline_model_parallel_size": 1, "micro_batch_size": 1, "global_batch_size": None,
        "make_vocab_size_divisible_by": 128, "rampup_batch_size": None, "vocab_size": None, "padded_vocab_size": None, "tokenizer_type": None,
        "tokenizer_model": None,
    }  # fmt: skip
    return argparse.Namespace(**{**known, **given})


def test_the_layout_follows_from_the_flags() -> None:
    found = checks.layout(args(tensor_model_parallel_size=2, micro_batch_size=2), 8)
    assert (found.data, found.global_batch, found.eval_batch) == (4, 8, 8)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"seq_length": None}, "--seq-length is missing"),
        ({"train_iters": None}, "--epochs is missing"),
        ({"lr": None}, "--lr is missing"),
        ({"context_parallel_size": 2}, "--context-parallel-size"),
        ({"tensor_model_parallel_size": 3}, "multiple of 3"),
        ({"tensor_model_parallel_size": 8}, "4 process.es. are too few for TP 8 x PP 1: --nproc x nodes"),
        ({"expert_model_parallel_size": 8}, "EP x expert TP 8 x PP 1: --nproc x nodes must be a multiple of 8"),
        ({"global_batch_size": 6, "micro_batch_size": 4}, "multiple of --micro-batch-size 4 x DP 4"),
        ({"micro_batch_size": 0}, "multiple of --micro-batch-size 0"),
    ],
)
def test_layouts_that_cannot_be(given: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        checks.layout(args(**given), 4)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "--epochs and --train-iters both"),
        ({"train_iters": None, "train_samples": 5}, "--epochs and --train-samples both"),
        ({"train_iters": None, "rampup_batch_size": ["1", "1", "5"]}, "does not change"),
    ],
)
def test_epochs_and_other_ways_to_say_how_long(given: dict[str, Any], word: str) -> None:
    assert checks.layout(args(train_iters=None), 4, epochs=True).global_batch == 4
    with pytest.raises(UsageError, match=word):
        checks.layout(args(**given), 4, epochs=True)


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
    assert checks.model_vocabulary(args(**given), info, tensor, tmp_path) == expected


@pytest.mark.parametrize("flag", ["vocab_size", "padded_vocab_size"])
def test_a_vocabulary_that_is_too_small(tmp_path: Path, flag: str) -> None:
    info = ShardDirectory(write_shards(tmp_path, {"train": PAIRS})).manifest.tokenizer
    with pytest.raises(DataError, match=r"119 .*100 is too small"):
        checks.model_vocabulary(args(**{flag: 100}), info, 1, tmp_path)


def tokenizer_folder(folder: Path, vocabulary: dict[str, int]) -> str:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))).save_pretrained(
        folder
    )
    return str(folder)


def test_the_tokenizer_that_the_user_names(tmp_path: Path) -> None:
    info = ShardDirectory(write_shards(tmp_path / "shards", {"train": PAIRS})).manifest.tokenizer
    same = tokenizer_folder(tmp_path / "same", VOCABULARY)
    swapped = tokenizer_folder(tmp_path / "swapped", {**VOCABULARY, "t50": 51, "t51": 50})
    named = {"tokenizer_type": "HuggingFaceTokenizer"}
    checks.check_tokenizer(args(), info, tmp_path)
    checks.check_tokenizer(args(**named, tokenizer_model=same), info, tmp_path)
    with pytest.raises(DataError, match=r"not that of --tokenizer-model .*swapped"):
        checks.check_tokenizer(args(**named, tokenizer_model=swapped), info, tmp_path)
    with pytest.raises(UsageError, match="cannot be loaded"):
        checks.check_tokenizer(args(**named, tokenizer_model=str(tmp_path / "nothing")), info, tmp_path)
    with pytest.raises(UsageError, match="needs --tokenizer-model"):
        checks.check_tokenizer(args(**named), info, tmp_path)
    with pytest.raises(UsageError, match="GPT2BPETokenizer cannot be compared"):
        checks.check_tokenizer(args(tokenizer_type="GPT2BPETokenizer"), info, tmp_path)


def test_the_hash_is_the_one_that_a_manifest_keeps() -> None:
    assert checks.vocabulary_hash(VOCABULARY) == vocabulary_hash(VOCABULARY)
    assert checks.vocabulary_hash({"b": 1, "a": 0, "é": 2}) == vocabulary_hash({"é": 2, "a": 0, "b": 1})
