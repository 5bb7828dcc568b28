"""The same command on a finished directory, as a batch system gives it after a preemption: nothing is left to do. Any
other command on it is refused with what differs."""

import io
import json
import os
import shutil
import sys

import pytest
from preprocess_jobs import INPUTS, SMALL, call, contents, error_line

from sft_shards.preprocess.tasks import rerun

pytestmark = pytest.mark.process


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in INPUTS[:2]:
        lines = path.read_bytes().splitlines(keepends=True)[:40]
        (folder / path.name).write_bytes(b"".join(lines))
    return folder


@pytest.fixture
def made(preprocess, tmp_path, folder):
    output = tmp_path / "out"
    assert preprocess("run", folder, *SMALL, "--output", output, "--workers", 1)[0] == 0
    return output


def same_again(preprocess, output, *words):
    before = contents(output)
    status, out, err = preprocess(*words, *SMALL, "--output", output)
    assert status == 0, err
    assert f"{output}: complete already; comparing" in err
    assert "they are the same, nothing is left to do" in err
    assert contents(output) == {path: digest for path, digest in before.items() if not path.startswith(".work")}
    return out


def refused(preprocess, output, *words):
    before = contents(output)
    status, _, err = preprocess(*words, "--output", output)
    assert status == 2, err
    line = error_line(err)
    assert "already holds a complete shard directory of another job" in line
    assert line.endswith("choose another --output, or give --overwrite")
    assert contents(output) == before
    return line


def test_killed_between_its_manifest_and_its_end(preprocess, tmp_path, folder):
    output = tmp_path / "out"
    for words in (["plan", folder, *SMALL], ["task", "--workers", 1]):
        assert preprocess(*words, "--output", output)[0] == 0
    shutil.copytree(output / ".work", tmp_path / "left")
    assert preprocess("finalize", "--output", output)[0] == 0
    shutil.copytree(tmp_path / "left", output / ".work")
    same_again(preprocess, output, "run", folder)
    assert not (output / ".work").exists()
    shutil.copytree(tmp_path / "left", output / ".work")
    status, _, err = preprocess("run", folder, *SMALL, "--output", output, "--train-on", "last")
    assert (status, "config.train_on" in error_line(err)) == (2, True)
    assert not (output / ".work").exists()


@pytest.mark.parametrize("engine", ["local", "ray", "slurm"])
def test_the_command_that_made_it(preprocess, made, folder, engine, monkeypatch):
    """No engine is asked for anything: there is no Slurm on this path."""
    monkeypatch.setenv("PATH", str(folder))
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    out = same_again(preprocess, made, "run", folder, "--engine", engine, "--json")
    assert json.loads(out)["counts"]["written"] == json.loads((made / "manifest.json").read_text())["counts"]["written"]


def test_its_steps(preprocess, made, folder):
    assert json.loads(same_again(preprocess, made, "plan", folder, "--json"))["tasks"] == 0
    assert preprocess("task", "--output", made)[0] == 0
    assert preprocess("finalize", "--output", made)[0] == 0
    refused(preprocess, made, "plan", folder, *SMALL, "--max-length", 500)


def test_another_configuration(preprocess, made, folder, make_tokenizer, monkeypatch):
    assert 'config.train_on: "all" → "last"' in refused(preprocess, made, "run", folder, *SMALL, "--train-on", "last")
    assert "config.inputs" in refused(preprocess, made, "run", folder / INPUTS[0].name, *SMALL)
    other = [*SMALL, "--tokenizer", make_tokenizer("bytes")]
    assert "config.tokenizer: " in refused(preprocess, made, "run", folder, *other)
    versions = rerun.versions()
    monkeypatch.setattr(rerun, "versions", lambda: {**versions, "numpy": "0"})
    assert "versions.numpy" in refused(preprocess, made, "run", folder, *SMALL)


def test_a_tokenizer_that_changed_under_its_name(preprocess, tmp_path, folder, bpe_folder):
    named, output = tmp_path / "named", tmp_path / "out"
    shutil.copytree(bpe_folder, named)
    words = ["run", folder, "--tokenizer", named]
    assert preprocess(*words, "--output", output)[0] == 0
    path = named / "tokenizer_config.json"
    path.write_text(path.read_text() + "\n")
    assert "tokenizer.files.tokenizer_config.json" in refused(preprocess, output, *words)


def test_other_inputs(preprocess, made, folder):
    path = folder / INPUTS[1].name
    text, state = path.read_bytes(), path.stat()
    place = text.index(b"content", len(text) // 2) + 12
    path.write_bytes(text[:place] + b"#" + text[place + 1 :])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert f"{path}: other contents" in refused(preprocess, made, "run", folder, *SMALL)
    path.write_bytes(text + text[: text.index(b"\n") + 1])
    assert f"{path}: bytes: {len(text)} → " in refused(preprocess, made, "run", folder, *SMALL)
    path.rename(folder / "new.jsonl")
    line = refused(preprocess, made, "run", folder, *SMALL)
    assert f"{path}: gone" in line
    assert f"{folder / 'new.jsonl'}: new" in line


def test_an_unfinished_job_may_be_moved_and_its_manifest_names_inputs_as_the_call_did(tmp_path, folder):
    """The plan holds absolute paths, because tasks may run in another folder; a finished directory holds none."""
    name = INPUTS[1].name
    call("run", name, *SMALL, "--output", tmp_path / "whole", cwd=folder)
    call("plan", name, *SMALL, "--output", tmp_path / "planned", cwd=folder)
    assert str(folder) in (tmp_path / "planned" / ".work" / "plan.json").read_text()
    (tmp_path / "planned").rename(tmp_path / "moved")
    for step in ("task", "finalize"):
        call(step, "--output", tmp_path / "moved", cwd=tmp_path)
    assert contents(tmp_path / "moved") == contents(tmp_path / "whole")
    for path in (tmp_path / "moved").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


def test_standard_input(preprocess, tmp_path, folder, monkeypatch):
    text = (folder / INPUTS[1].name).read_bytes()

    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(text)
    assert preprocess("run", "-", *SMALL, "--output", tmp_path / "out", "--workers", 1)[0] == 0
    give(text)
    same_again(preprocess, tmp_path / "out", "run", "-")
    give(text[:-5] + text[-4:] + b" ")
    assert "-: other contents" in refused(preprocess, tmp_path / "out", "run", "-", *SMALL)


def test_more_left_out_than_allowed_now(preprocess, tmp_path, bpe_folder):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    words = ["run", path, "--tokenizer", bpe_folder, "--output", tmp_path / "out"]
    assert preprocess(*words, "--max-rejects", 1)[0] == 0
    assert preprocess(*words, "--max-rejects", 1)[0] == 0
    status, _, err = preprocess(*words, "--max-rejects", 0)
    assert (status, "1 of 2 records were left out" in error_line(err)) == (1, True)
