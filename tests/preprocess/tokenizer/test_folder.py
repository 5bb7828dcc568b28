"""Where a tokenizer comes from: links in its folder, a folder of the Hub's cache, a revision."""

import json
import os
import shutil
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, TOKENIZER, config, contents, error_line

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.preprocess.job import run
from sft_shards.preprocess.tasks.rerun import made_already
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

COMMIT = "0123456789" * 4


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TOKENIZER, tmp_path / "tokenizer"))


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot as the Hub's cache holds it: links to blobs beside it."""
    home = tmp_path / "models--owner--name"
    (home / "blobs").mkdir(parents=True)
    (home / "snapshots" / COMMIT).mkdir(parents=True)
    for number, file in enumerate(sorted(TOKENIZER.iterdir())):
        shutil.copyfile(file, home / "blobs" / str(number))
        (home / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{number}")
    return home / "snapshots" / COMMIT


@pytest.mark.unit
@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"])
def test_a_link_to_a_file_elsewhere_is_refused(folder, tmp_path, name):
    """It would be read, and copied into every shard directory that is passed on."""
    (tmp_path / "secret").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match=f"{name}: is a link to a file elsewhere"):
        Tokenizer(str(folder))


@pytest.mark.unit
@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a FIFO"), (os.mkdir, "a folder")])
def test_what_is_no_file_is_refused(folder, make, kind):
    make(folder / "vocab.json")
    with pytest.raises(UsageError, match=f"vocab.json: is {kind}"):
        Tokenizer(str(folder))


@pytest.mark.unit
def test_a_dangling_link_is_refused(folder):
    (folder / "vocab.json").symlink_to("nothing")
    with pytest.raises(UsageError, match=r"vocab.json: is a link, not a file"):
        Tokenizer(str(folder))


@pytest.mark.unit
def test_links_within_the_folder_and_the_cache_may_stay(folder, snapshot):
    (folder / "tokenizer.json").rename(folder / "real.json")
    (folder / "tokenizer.json").symlink_to("real.json")
    assert Tokenizer(str(folder)).info().files == Tokenizer(str(snapshot)).info().files


@pytest.mark.process
def test_the_commit_stands_in_the_manifest(snapshot, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    job = config(INPUTS[:1])
    by_folder, by_name = tmp_path / "by-folder", tmp_path / "by-name"
    run(job, by_folder, workers=1)
    named = type(job)(**{**vars(job), "tokenizer": "owner/name", "revision": "main"})
    run(named, by_name, workers=1)
    assert asked == [("owner/name", "main")]
    assert Manifest.read(by_name).config["revision"] == COMMIT
    assert "revision" not in json.loads((by_folder / "manifest.json").read_text("utf-8"))["config"]
    one, other = contents(by_folder), contents(by_name)
    assert {path for path in one if one[path] != other[path]} == {"manifest.json"}
    assert made_already(named, by_name) == Manifest.read(by_name)


@pytest.mark.process
@pytest.mark.parametrize("name", ["./none", "none/", "~/none"])
def test_a_path_is_no_name(preprocess, tmp_path, name):
    status, _, err = preprocess("run", INPUTS[0], "--tokenizer", name, "--output", tmp_path / "out")
    assert (status, f"tokenizer {name}: no such folder" in error_line(err)) == (2, True)


@pytest.mark.process
def test_a_folder_has_no_revision(preprocess, tmp_path):
    words = ["run", INPUTS[0], "--tokenizer", TOKENIZER, "--revision", "v1", "--output", tmp_path / "out"]
    status, _, err = preprocess(*words)
    assert (status, "is a folder here, not a Hub name" in error_line(err)) == (2, True)
