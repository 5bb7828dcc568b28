"""Shards against each other, against the call and against the model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from megatron_flags import args
from toy_runs import VOCABULARY, random_pairs, tokenizer_folder, vocabulary_hash, write_shards

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer import compatibility

PAIRS = random_pairs(4, seed=1)


def test_weights(tmp_path: Path) -> None:
    assert compatibility.parse_shards("data") == ("data", 1)
    assert compatibility.parse_shards("data:1") == compatibility.parse_shards("data:1.0") == ("data", 1)
    assert compatibility.parse_shards("a:b:0.3") == ("a:b", Fraction(3, 10))
    assert compatibility.parse_shards("data:1/3") == ("data", Fraction(1, 3))
    assert compatibility.parse_shards("s3:data") == ("s3:data", 1)
    for weight in ("0", "-1", "0.0"):
        with pytest.raises(UsageError, match="above 0"):
            compatibility.parse_shards(f"data:{weight}")
    odd = tmp_path / "data:2"
    odd.mkdir()
    assert compatibility.parse_shards(str(odd)) == (str(odd), 1)


@pytest.mark.parametrize("bad", ["0", "-1", "three", "1/0", "nan", "inf", ""])
def test_epochs(bad: str) -> None:
    assert compatibility.parse_epochs("0.5") == Fraction(1, 2)
    with pytest.raises(UsageError, match="--epochs"):
        compatibility.parse_epochs(bad)


def test_names_are_as_short_as_they_can_be() -> None:
    assert compatibility.short_names([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert compatibility.short_names([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]
    assert compatibility.short_names([Path("x/a"), Path("x/a"), Path("b")]) == ["a#1", "a#2", "b"]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    a = write_shards(tmp_path / "a", {"train": PAIRS})
    b = write_shards(tmp_path / "b", {"train": PAIRS}, vocabulary={f"x{i}": i for i in range(120)}, name="other")
    assert len(compatibility.open_shards([str(a), str(a)])) == 2
    with pytest.raises(DataError, match=r"tokenized with other, .* with toy"):
        compatibility.open_shards([str(a), str(b)])


@pytest.mark.parametrize(("ids", "word"), [({"eos": 120}, "EOS id 120"), ({"pad": -1}, "padding id -1")])
def test_ids_outside_the_vocabulary(tmp_path: Path, ids: dict[str, int], word: str) -> None:
    path = write_shards(tmp_path, {"train": PAIRS}, **ids)
    with pytest.raises(DataError, match=word):
        compatibility.open_shards([str(path)])


def test_no_train_split(tmp_path: Path) -> None:
    path = write_shards(tmp_path, {"valid": PAIRS})
    with pytest.raises(DataError, match="train split is empty"):
        compatibility.open_shards([str(path)])


def test_the_layout_follows_from_the_flags() -> None:
    found = compatibility.layout(args(tensor_model_parallel_size=2, micro_batch_size=2), 8)
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
        compatibility.layout(args(**given), 4)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "--epochs and --train-iters both"),
        ({"train_iters": None, "train_samples": 5}, "--epochs and --train-samples both"),
        ({"train_iters": None, "rampup_batch_size": ["1", "1", "5"]}, "does not change"),
    ],
)
def test_epochs_and_other_ways_to_say_how_long(given: dict[str, Any], word: str) -> None:
    assert compatibility.layout(args(train_iters=None), 4, epochs=True).global_batch == 4
    with pytest.raises(UsageError, match=word):
        compatibility.layout(args(**given), 4, epochs=True)


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


@pytest.mark.parametrize("flag", ["vocab_size", "padded_vocab_size"])
def test_a_vocabulary_that_is_too_small(tmp_path: Path, flag: str) -> None:
    info = ShardDirectory(write_shards(tmp_path, {"train": PAIRS})).manifest.tokenizer
    with pytest.raises(DataError, match=r"119 .*100 is too small"):
        compatibility.model_vocabulary(args(**{flag: 100}), info, 1, tmp_path)


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


def test_the_hash_is_the_one_that_a_manifest_keeps() -> None:
    assert compatibility.vocabulary_hash(VOCABULARY) == vocabulary_hash(VOCABULARY)
    assert compatibility.vocabulary_hash({"b": 1, "a": 0, "é": 2}) == vocabulary_hash({"é": 2, "a": 0, "b": 1})
