"""A manifest is checked when it is read: types, names that lead out of the directory, links and FIFOs in its place."""

import copy
import hashlib
import json
import os

import pytest
from toy_runs import turn, write_shards

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards import Manifest, ShardDirectory, SourceInfo
from sft_shards.formats.shards.files import json_bytes

pytestmark = pytest.mark.unit


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", {"train": [turn([10], [11, 12]), turn([13], [14])]})


def spoil(directory, change):
    """Change the JSON of a manifest, and give it the hash that fits: what a stranger would do."""
    raw = json.loads((directory / "manifest.json").read_text("utf-8"))
    del raw["sha256"]
    raw = copy.deepcopy(raw)
    change(raw)
    raw["sha256"] = hashlib.sha256(json_bytes(raw)).hexdigest()
    (directory / "manifest.json").write_bytes(json_bytes(raw))


def refusal(directory):
    with pytest.raises(DataError) as error:
        Manifest.read(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_was_written_is_read(shards):
    manifest = Manifest.read(shards)
    spoil(shards, lambda raw: None)
    assert Manifest.read(shards) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["splits"]["train"]["shards"][0].update(tokens="9"), 'shards[0].tokens is "9", not an integer'),
        (lambda raw: raw["splits"]["train"]["shards"][0].update(tokens=-9), "shard 00000 has a negative number"),
        (lambda raw: raw["splits"]["train"].update(shards=raw["splits"]["train"]["shards"] * 2), "two shards have one"),
        (lambda raw: raw["splits"]["train"].pop("longest"), "splits.train.longest is missing"),
        (lambda raw: raw["splits"].update({"../x": raw["splits"]["train"]}), "unknown split '../x'"),
        (lambda raw: raw["counts"]["rejected"].update(x=[]), "counts.rejected.x is list"),
        (lambda raw: raw.pop("tokenizer"), "tokenizer is missing"),
        (lambda raw: raw.update(tokenizer=None), "tokenizer is null, not an object"),
        (lambda raw: raw.update(notes=[]), "notes is list, not an object"),
        (lambda raw: raw["notes"].update(x="y"), 'notes.counts.x is "y"'),
        (lambda raw: raw.update(extra=1), "extra is not known"),
    ],
)
def test_a_value_of_another_type_is_named_with_the_version(shards, change, message):
    spoil(shards, lambda raw: raw["versions"].update({"sft-shards": "0.9.1"}))
    spoil(shards, change)
    said = refusal(shards)
    assert message in said
    assert "schema version 1, written by sft-shards 0.9.1" in said


@pytest.mark.parametrize("name", ["../00000", "/tmp/x", "0000", "00000\n", "٠٠٠٠٠", "", "00000/x"])
def test_a_shard_that_lies_elsewhere_is_refused(shards, name):
    def change(raw):
        shard = raw["splits"]["train"]["shards"][0]
        shard["files"] = {path.replace("00000", name): facts for path, facts in shard["files"].items()}
        shard["name"] = name

    spoil(shards, change)
    assert "is not the name of a shard" in refusal(shards)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "tokens/../../x.bin", "tokens/00001.bin", "x"])
def test_files_of_a_shard_that_lie_elsewhere_are_refused(shards, path):
    def change(raw):
        files = raw["splits"]["train"]["shards"][0]["files"]
        files[path] = files["tokens/00000.bin"]

    spoil(shards, change)
    assert "the files of shard 00000 are not" in refusal(shards)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", "", "a\nb"])
def test_tokenizer_files_that_lie_elsewhere_are_refused(shards, name):
    spoil(shards, lambda raw: raw["tokenizer"]["files"].update({name: "0" * 64}))
    assert "is not the name of a file" in refusal(shards)


def test_another_schema_version_is_named(shards):
    spoil(shards, lambda raw: raw.update(schema=2))
    assert "schema version 2, this release reads 1" in refusal(shards)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"schema": 1, "x": "\\ud800"}', b"[]", b"1", b'{"schema": [1]}', b'{"schema": 1}']
)
def test_no_json_is_a_traceback(shards, text):
    (shards / "manifest.json").write_bytes(text)
    assert str(shards) in refusal(shards)


def test_a_link_or_a_fifo_in_its_place_is_refused(shards, tmp_path):
    os.rename(shards / "manifest.json", tmp_path / "elsewhere.json")
    (shards / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    assert "manifest.json: is a link" in refusal(shards)
    (shards / "manifest.json").unlink()
    os.mkfifo(shards / "manifest.json")
    assert "manifest.json: is a FIFO" in refusal(shards)


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_shards_are_opened_inside_of_the_directory(shards, tmp_path, kind):
    """A mask that lies elsewhere, a split that is a link, a FIFO that nobody writes to."""
    if kind == "link":
        os.rename(shards / "train/loss_mask/00000.bin", tmp_path / "mask.bin")
        (shards / "train/loss_mask/00000.bin").symlink_to(tmp_path / "mask.bin")
    elif kind == "folder":
        os.rename(shards / "train", tmp_path / "train")
        (shards / "train").symlink_to(tmp_path / "train")
    else:
        (shards / "train/tokens/00000.idx").unlink()
        os.mkfifo(shards / "train/tokens/00000.idx")
    with pytest.raises(DataError, match=r"is a (link|FIFO); a shard directory holds regular files"):
        ShardDirectory(shards).split("train")


@pytest.mark.parametrize("weight", [0, -1, True, "2", None, float("inf"), float("nan"), [1]])
def test_a_weight_that_is_none_is_named(weight):
    source = SourceInfo(
        path="a.jsonl", kind="jsonl", compression="", format="openai", bytes=0, sha256="", records=0,
        options={"weight": weight},
    )  # fmt: skip
    with pytest.raises(DataError, match=r"source a\.jsonl: its weight .* is no number above 0"):
        _ = source.weight
