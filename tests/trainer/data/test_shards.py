"""Shard directories: their weights, short names, and what makes them unfit for each other."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from toy_runs import random_pairs, write_shards

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.data.shards import open_shards, parse_shards, short_names

pytestmark = pytest.mark.unit

PAIRS = random_pairs(4, seed=1)


def test_weights(tmp_path: Path) -> None:
    assert parse_shards("data") == ("data", 1)
    assert parse_shards("data:1") == parse_shards("data:1.0") == ("data", 1)
    assert parse_shards("a:b:0.3") == ("a:b", Fraction(3, 10))
    assert parse_shards("data:1/3") == ("data", Fraction(1, 3))
    assert parse_shards("s3:data") == ("s3:data", 1)
    for weight in ("0", "-1", "0.0"):
        with pytest.raises(UsageError, match="above 0"):
            parse_shards(f"data:{weight}")
    named = tmp_path / "data:2"
    named.mkdir()
    assert parse_shards(str(named)) == (str(named), 1)


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert short_names([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]
    assert short_names([Path("x/a"), Path("x/a"), Path("b")]) == ["a#1", "a#2", "b"]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    a = write_shards(tmp_path / "a", {"train": PAIRS})
    b = write_shards(tmp_path / "b", {"train": PAIRS}, vocabulary={f"x{i}": i for i in range(120)}, name="other")
    assert len(open_shards([str(a), str(a)])) == 2
    with pytest.raises(DataError, match=r"tokenized with other, .* with toy"):
        open_shards([str(a), str(b)])


@pytest.mark.parametrize(("ids", "word"), [({"eos": 120}, "EOS id 120"), ({"pad": -1}, "padding id -1")])
def test_ids_outside_the_vocabulary(tmp_path: Path, ids: dict[str, int], word: str) -> None:
    path = write_shards(tmp_path, {"train": PAIRS}, **ids)
    with pytest.raises(DataError, match=word):
        open_shards([str(path)])


def test_no_train_split(tmp_path: Path) -> None:
    path = write_shards(tmp_path, {"valid": PAIRS})
    with pytest.raises(DataError, match="train split is empty"):
        open_shards([str(path)])
