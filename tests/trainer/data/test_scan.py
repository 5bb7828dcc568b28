"""A hostile or broken directory is refused in one line before it is trained on; a scan is made once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from toy_runs import VOCABULARY, random_pairs, turn, write_shards
from writable import writable

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import ShardDirectory
from sft_shards.trainer.data import scan
from sft_shards.trainer.data.cache import Cache

pytestmark = pytest.mark.unit


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pairs = [turn([10], [11, 12]), *random_pairs(20, seed=1)]
    return writable(write_shards(tmp_path / "shards", {"train": pairs, "valid": pairs, "test": pairs}, shards=2))


def poke(path: Path, place: int, value: object, dtype: str) -> None:
    """Change one number of a file, which gets another time of change, as it does in life."""
    data = np.fromfile(path, dtype=dtype)
    data[place] = value
    data.tofile(path)
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def check(shards: Path, cache: Path) -> None:
    directories = [ShardDirectory(shards)]
    scan.check_layout(directories)
    scan.check_values(directories, Cache(cache))


def refused(shards: Path, cache: Path, words: str) -> None:
    for _ in range(2):  # what was found is kept, and refused again
        with pytest.raises(DataError) as error:
            check(shards, cache)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_directory_is_scanned_once_and_again_when_a_file_changed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[str] = []
    extremes = scan._extremes
    monkeypatch.setattr(
        scan, "_extremes", lambda shard: (scanned.append(str(shard.tokens.prefix.parents[1].name)), extremes(shard))[1]
    )
    check(shards, tmp_path / "cache")
    assert sorted(scanned) == ["train", "train", "valid", "valid"]
    check(shards, tmp_path / "cache")
    assert len(scanned) == 4
    os.utime(shards / "valid/tokens/00000.bin")
    check(shards, tmp_path / "cache")
    assert sorted(scanned[4:]) == ["valid", "valid"]


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("value", [2, 255])
def test_a_mask_is_no_weight(shards: Path, tmp_path: Path, split: str, value: int) -> None:
    check(shards, tmp_path / "cache")
    poke(shards / split / "loss_mask" / "00001.bin", 3, value, "u1")
    refused(shards, tmp_path / "cache", f"shard 00001 of split {split}: mask value {value} is neither 0 nor 1")


@pytest.mark.parametrize("number", [len(VOCABULARY), 127, 60_000])
def test_ids_behind_the_vocabulary_are_refused(shards: Path, tmp_path: Path, number: int) -> None:
    """Those of the padding of the embedding (120 to 127 here) train silently; larger ones end in a traceback."""
    poke(shards / "train" / "tokens" / "00000.bin", 3, number, "<u2")
    refused(shards, tmp_path / "cache", f"split train: id {number} is outside of the vocabulary of 120")


def test_ids_below_zero_are_refused(tmp_path: Path) -> None:
    vocabulary = {f"t{number}": number for number in range(70_000)}  # so many are stored as int32
    folder = writable(write_shards(tmp_path / "shards", {"train": [turn([10], [11, 12])]}, vocabulary=vocabulary))
    poke(folder / "train" / "tokens" / "00000.bin", 3, -1, "<i4")
    refused(folder, tmp_path / "cache", "id -1 is outside of the vocabulary of 70000")


def test_trained_tokens_are_those_of_the_manifest(shards: Path, tmp_path: Path) -> None:
    poke(shards / "train" / "loss_mask" / "00000.bin", 0, 1, "u1")
    refused(shards, tmp_path / "cache", "tokens carry loss, the manifest says")


@pytest.mark.parametrize("first", [0, -1])
def test_a_sequence_has_an_item(shards: Path, tmp_path: Path, first: int) -> None:
    """Lengths whose sum is right, so that the sizes of all files fit."""
    for kind in ("tokens", "loss_mask"):
        path = shards / "train" / kind / "00000.idx"
        data = bytearray(path.read_bytes())
        lengths = np.frombuffer(data, dtype="<i4", offset=34, count=2)
        data[34:42] = np.array([first, lengths.sum() - first], dtype="<i4").tobytes()
        path.write_bytes(data)
    refused(shards, tmp_path / "cache", f"sequence 0 has {first} items; make the shards again")


@pytest.mark.parametrize("kind", ["tokens", "loss_mask"])
def test_a_pointer_leads_to_its_sequence(shards: Path, tmp_path: Path, kind: str) -> None:
    """The mask of one conversation over the tokens of another."""
    path = shards / "train" / kind / "00000.idx"
    count = ShardDirectory(shards).manifest.splits["train"].shards[0].sequences
    data = bytearray(path.read_bytes())
    data[34 + 4 * count + 8 : 34 + 4 * count + 16] = bytes(8)
    path.write_bytes(data)
    refused(shards, tmp_path / "cache", "pointers or document bounds do not follow from the lengths")


def test_the_test_split_is_not_read(shards: Path, tmp_path: Path) -> None:
    poke(shards / "test" / "loss_mask" / "00000.bin", 0, 2, "u1")
    check(shards, tmp_path / "cache")
