"""The cache of loaded tokenizers: what it holds is what loading gives, and nothing else is ever taken from it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from preprocess_jobs import DATA, TOKENIZER, call, command, contents

from sft_shards.formats.cache_folder import read_private
from sft_shards.preprocess.tokenizer import cache
from sft_shards.preprocess.tokenizer.loaded import LoadedTokenizer
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

BLOCKED = "import sys; sys.modules['transformers'] = None"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFT_SHARDS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenizers"


@pytest.fixture
def loads(monkeypatch):
    """A list that grows with every tokenizer that transformers reads."""
    done = []
    load = LoadedTokenizer.of_folder

    def counted(*arguments, **options):
        done.append(arguments)
        return load(*arguments, **options)

    monkeypatch.setattr(LoadedTokenizer, "of_folder", counted)
    return done


def entries(folder):
    return sorted(path for path in folder.iterdir() if path.suffix == ".loaded")


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm", "metaspace"])
def test_what_is_kept_is_what_was_loaded(folder, loads, make_tokenizer, kind):
    path = str(make_tokenizer(kind))
    first, second = Tokenizer(path), Tokenizer(path)
    assert len(loads) == 1
    assert first.metadata == second.metadata
    assert first.info() == second.info()
    assert first.serialized == second.serialized
    assert first.loaded == second.loaded == Tokenizer(path, cache=False).loaded
    text = "naïve  café — 日本語 <|im_end|>\n"
    assert first.backend.encode(text).ids == second.backend.encode(text).ids
    assert (first.token_bytes is None) == (kind == "metaspace")


@pytest.mark.unit
def test_nothing_is_kept_or_taken_where_the_cache_is_off(folder, loads):
    Tokenizer(str(TOKENIZER), cache=False)
    assert not folder.exists()
    Tokenizer(str(TOKENIZER))
    Tokenizer(str(TOKENIZER), cache=False)
    assert len(loads) == 3


def truncated(path):
    path.write_bytes(path.read_bytes()[:-50])


def changed(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def emptied(path):
    path.write_bytes(b"")


def writable_by_others(path):
    path.chmod(0o666)


def in_a_folder_that_others_write(path):
    path.parent.chmod(0o777)


def link(path):
    shutil.move(path, path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def fifo(path):
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.unit
@pytest.mark.parametrize(
    "damage", [truncated, changed, emptied, writable_by_others, in_a_folder_that_others_write, link, fifo]
)
def test_an_entry_that_is_damaged_or_not_ours_is_made_anew(folder, loads, damage):
    good = Tokenizer(str(TOKENIZER)).loaded
    (path,) = entries(folder)
    damage(path)
    assert Tokenizer(str(TOKENIZER)).loaded == good
    assert len(loads) == 2
    if damage is not in_a_folder_that_others_write:
        assert Tokenizer(str(TOKENIZER)).loaded == good
        assert len(loads) == 2, "the new entry is believed"


@pytest.mark.unit
def test_an_entry_of_another_user_is_not_believed(folder, monkeypatch):
    Tokenizer(str(TOKENIZER))
    (path,) = entries(folder)
    assert read_private(path) is not None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert read_private(path) is None


@pytest.mark.unit
def test_other_files_and_other_versions_have_entries_of_their_own(folder, loads, tmp_path, monkeypatch):
    Tokenizer(str(TOKENIZER))
    copy = tmp_path / "copy"
    shutil.copytree(TOKENIZER, copy)
    Tokenizer(str(copy))
    assert len(loads) == 1, "the same files in another folder are the same tokenizer"
    (copy / "generation_config.json").write_text('{"eos_token_id": [0]}')
    Tokenizer(str(copy))
    assert len(loads) == 2
    monkeypatch.setattr(cache, "versions", lambda: {"transformers": "0"})
    Tokenizer(str(TOKENIZER))
    assert len(loads) == 3
    assert len(entries(folder)) == 3


@pytest.mark.unit
def test_a_second_template_is_part_of_an_entry_s_name(folder, loads, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TOKENIZER, copy)
    config = json.loads((copy / "tokenizer_config.json").read_text("utf-8"))
    (copy / "chat_template.jinja").write_text(config.pop("chat_template", "{{ messages }}"), "utf-8")
    (copy / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    second = copy / "additional_chat_templates" / "tool_use.jinja"
    second.parent.mkdir()
    for text in ("one {{ messages }}", "two {{ messages }}"):
        second.write_text(text, "utf-8")
        assert Tokenizer(str(copy)).tool_template == text
    assert len(loads) == 2


@pytest.mark.unit
def test_a_folder_without_tokenizer_json_is_not_kept(folder, loads, tmp_path):
    """transformers then looks at more files than are part of an entry's name."""
    copy = tmp_path / "copy"
    copy.mkdir()
    vocabulary = {token: number for number, token in enumerate(["<|endoftext|>", "a", "b", "ab"])}
    (copy / "vocab.json").write_text(json.dumps(vocabulary))
    (copy / "merges.txt").write_text("#version: 0.2\na b\n")
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    Tokenizer(str(copy))
    Tokenizer(str(copy))
    assert len(loads) == 2
    assert not folder.exists()


@pytest.mark.unit
def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch, loads):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFT_SHARDS_CACHE", str(tmp_path / "file"))
    Tokenizer(str(TOKENIZER))
    Tokenizer(str(TOKENIZER))
    assert len(loads) == 2


@pytest.mark.process
def test_a_second_job_needs_no_transformers_and_makes_the_same_bytes(folder, tmp_path):
    job = ["run", DATA / "openai_tr.jsonl", "--tokenizer", TOKENIZER, "--workers", 1, "--output"]
    call(*job, tmp_path / "cold")
    call(*job, tmp_path / "off", "--no-cache")
    script = f"{BLOCKED}; from sft_shards.preprocess.cli import main; main()"
    warm = [sys.executable, "-c", script, *map(str, job), str(tmp_path / "warm")]
    done = subprocess.run(warm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "cold") == contents(tmp_path / "warm") == contents(tmp_path / "off")


@pytest.mark.process
def test_twenty_jobs_at_once_make_the_same_bytes_and_one_entry(folder, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say yes", "output": "yes"}\n' * 5)
    jobs = [
        subprocess.Popen(
            command("run", tmp_path / "rows.jsonl", "--tokenizer", TOKENIZER, "--output", tmp_path / f"{number}"),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for number in range(20)
    ]
    for job in jobs:
        _, err = job.communicate()
        assert job.returncode == 0, err
    first = contents(tmp_path / "0")
    assert all(contents(tmp_path / f"{number}") == first for number in range(20))
    assert len(entries(folder)) == 1
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
