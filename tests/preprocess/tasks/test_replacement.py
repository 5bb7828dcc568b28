"""`--overwrite`: the old directory stays whole until the new one is complete, and nothing of anybody else's is removed.

Calls that are wrong, folders that are not ours, and the steps of a job by themselves; kills and full disks are in
`tests/preprocess/test_interruptions.py`.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, TOKENIZER, Held, call, contents, error_line, start

from sft_shards.preprocess.directories.merge import merge
from sft_shards.preprocess.tasks import replacement

pytestmark = pytest.mark.process

OPTIONS = ["--tokenizer", TOKENIZER, "--shard-tokens", 2500]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An input, and what two jobs make of it: `all`, and `last` with --train-on last."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "in.jsonl").write_bytes(b"".join(INPUTS[1].read_bytes().splitlines(keepends=True)[:40]))
    for name in ("all", "last"):
        call("run", folder / "in.jsonl", *OPTIONS, "--train-on", name, "--output", folder / name)
    return folder


@pytest.fixture
def source(made):
    return made / "in.jsonl"


@pytest.fixture
def output(made, tmp_path):
    """A copy of the directory `all`, alone in its folder."""
    (tmp_path / "here").mkdir()
    return Path(shutil.copytree(made / "all", tmp_path / "here" / "out"))


def refused(result, status, *words):
    assert result[0] == status, result
    line = error_line(result[2])
    assert all(str(word) in line for word in words), line


def alone(output):
    return os.listdir(output.parent) == [output.name]


def test_the_new_directory_takes_the_place_of_the_old_one(preprocess, made, source, output):
    old = os.stat(output).st_ino
    assert preprocess("run", source, *OPTIONS, "--train-on", "last", "--output", output, "--overwrite")[0] == 0
    assert contents(output) == contents(made / "last")
    assert os.stat(output).st_ino != old
    assert alone(output)


def test_where_folders_cannot_be_exchanged(preprocess, made, source, output, monkeypatch):
    monkeypatch.setattr(replacement, "_exchange", lambda *_: False)
    assert preprocess("run", source, *OPTIONS, "--train-on", "last", "--output", output, "--overwrite")[0] == 0
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_a_link_to_the_directory_stays_one(preprocess, made, source, output, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(output)
    assert preprocess("run", source, *OPTIONS, "--train-on", "last", "--output", link, "--overwrite")[0] == 0
    assert link.is_symlink()
    assert contents(output) == contents(made / "last")
    assert alone(output)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["gone.jsonl", "--tokenizer", TOKENIZER], 2),
        ([INPUTS[0], "--tokenizer", "no/such/folder"], 2),
        ([INPUTS[0], "--tokenizer", TOKENIZER, "--template", "gone.jinja"], 2),
        ([INPUTS[0], "--tokenizer", TOKENIZER, "--max-rejects", 0, "--max-length", 8, "--overlong", "drop"], 1),
        ([INPUTS[0], "--tokenizer", TOKENIZER, "--max-length", 8, "--overlong", "error"], 1),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_call_that_is_wrong_costs_nothing(preprocess, output, words, status, command):
    before = contents(output)
    if command == "plan":
        words = [word for word in words if word not in ("--max-rejects", 0)]
    result = preprocess(command, *words, "--output", output, "--overwrite")
    if command == "run" or status == 2:
        refused(result, status)
    assert contents(output) == before
    assert status == 1 or alone(output)


def test_what_is_read_must_not_overlap_with_the_output(preprocess, source, output):
    before = contents(output)
    inside = output / "rejects.jsonl"
    for words in (
        [output, *OPTIONS],
        [output.parent, *OPTIONS],
        [inside, *OPTIONS],
        [f"{output}/man*.json", *OPTIONS, "--format", "alpaca"],
        [source, "--tokenizer", output / "tokenizer"],
        [source, *OPTIONS, "--template", output / "tokenizer" / "chat_template.jinja"],
        [source, *OPTIONS, "--extend", output],
        [source, *OPTIONS, "--extend", output.parent / "." / output.name],
    ):
        for command in (["run"], ["plan"], ["run", "--dry-run"]):
            result = preprocess(*command, *words, "--output", output, "--overwrite")
            assert (result[0], contents(output) == before, alone(output)) == (2, True, True), (words, result)
            if not str(words[-1]).endswith(".jinja"):
                refused(result, 2, "overlaps with")


def add(output, name, text="x"):
    path = output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "name", [".git/HEAD", "notes.txt", "train/notes.txt", ".work/notes.txt", "tokenizer/notes.txt", "train/rows/9.txt"]
)
def test_a_directory_with_files_of_others_is_refused(preprocess, source, output, name):
    add(output, name)
    before = contents(output)
    for words in (["run", source, *OPTIONS], ["plan", source, *OPTIONS], ["run", source, *OPTIONS, "--dry-run"]):
        refused(preprocess(*words, "--output", output, "--overwrite"), 2, output / name, "no job wrote this")
        assert contents(output) == before


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": "{}", "thesis.tex": "x"},
        {"manifest.json": '{"name": "an extension of a browser", "manifest_version": 3}'},
        {".work/thesis.tex": "x"},
        {".work/plan.json": "{}", "thesis.tex": "x"},
        {".work/plan.json": "{}", ".work/tasks/thesis.tex": "x"},
        {".work/plan.json": "{}", ".git/HEAD": "x"},
        {"thesis.tex": "x"},
    ],
)
def test_a_folder_that_only_looks_like_ours_is_left_alone(preprocess, made, tmp_path, source, files):
    output = tmp_path / "here" / "out"
    for name, text in files.items():
        add(output, name, text)
    before = contents(output)
    merged = [made / "all", shutil.copytree(made / "all", tmp_path / "again")]
    for words in (["run", source, *OPTIONS], ["plan", source, *OPTIONS], ["merge", *merged]):
        refused(preprocess(*words, "--output", output, "--overwrite"), 2, output)
        assert {name: digest for name, digest in contents(output).items() if name != ".work/lock"} == before
        assert alone(output)


def test_a_file_that_came_meanwhile_is_kept(preprocess, made, source, output):
    """Put there after the job began: the new directory is complete, and goes to its place when the file is gone."""
    words = [source, *OPTIONS, "--train-on", "last"]
    assert preprocess("plan", *words, "--output", output, "--overwrite")[0] == 0
    assert preprocess("task", "--output", output)[0] == 0
    add(output, "notes.txt")
    before = contents(output)
    refused(preprocess("finalize", "--output", output), 2, output / "notes.txt")
    assert contents(output) == before
    (output / "notes.txt").unlink()
    assert preprocess("finalize", "--output", output)[0] == 0
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_its_steps(preprocess, made, source, output):
    before = contents(output)
    words = ["plan", source, "--tokenizer", TOKENIZER, "--shard-tokens", 2500, "--train-on", "last"]
    assert preprocess(*words, "--output", output, "--overwrite")[0] == 0
    tasks = json.loads(preprocess(*words, "--output", output, "--overwrite", "--json")[1])["tasks"]
    assert preprocess("task", "--output", output, "--index", 0)[0] == 0
    assert contents(output) == before
    refused(preprocess("finalize", "--output", output), 1, f"{output}: {tasks - 1} of {tasks} tasks are not finished")
    assert preprocess("task", "--output", output, "--rank", 0, "--world-size", 1)[0] == 0
    assert contents(output) == before
    assert preprocess("finalize", "--output", output)[0] == 0
    assert contents(output) == contents(made / "last")
    for again in ("task", "finalize"):
        assert preprocess(again, "--output", output)[0] == 0
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_the_same_call_goes_on_and_another_starts_over(preprocess, made, source, output):
    common = ["--tokenizer", TOKENIZER, "--shard-tokens", 2500, "--output", output, "--overwrite"]
    assert preprocess("plan", source, *common, "--train-on", "last")[0] == 0
    assert preprocess("task", "--output", output, "--index", 0)[0] == 0
    [task] = output.parent.glob(".out.overwrite/.work/tasks/*")
    before = task.stat().st_ino
    assert preprocess("plan", source, *common, "--train-on", "last")[0] == 0
    assert task.stat().st_ino == before
    assert preprocess("plan", source, *common, "--train-on", "everything")[0] == 0
    assert not task.exists()
    assert preprocess("run", source, *common, "--train-on", "last")[0] == 0
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_an_unfinished_job_goes_on_or_is_replaced_where_it_lies(preprocess, made, source, tmp_path):
    """There is no complete directory to keep."""
    output = tmp_path / "here" / "out"
    common = ["--tokenizer", TOKENIZER, "--shard-tokens", 2500, "--output", output]
    assert preprocess("plan", source, *common)[0] == 0
    assert preprocess("task", "--output", output, "--index", 0)[0] == 0
    before = (output / ".work" / "tasks" / "00000").stat().st_ino
    assert preprocess("plan", source, *common, "--overwrite")[0] == 0
    assert (output / ".work" / "tasks" / "00000").stat().st_ino == before
    refused(preprocess("run", source, *common, "--train-on", "last"), 2, "another plan")
    assert preprocess("run", source, *common, "--train-on", "last", "--overwrite")[0] == 0
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_standard_input_of_an_unfinished_job_is_replaced(preprocess, tmp_path, source, monkeypatch):
    output = tmp_path / "out"
    common = ["-", "--tokenizer", TOKENIZER, "--output", output]

    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    text = source.read_bytes()
    lines = text.splitlines(keepends=True)
    give(text)
    assert preprocess("plan", *common)[0] == 0
    give(b"".join(lines[:10]))
    refused(preprocess("run", *common), 2, "not what the unfinished job was given")
    give(b"".join(lines[:10]))
    assert preprocess("run", *common, "--overwrite")[0] == 0
    assert json.loads((output / "manifest.json").read_text())["counts"]["read"] == 10


def test_merge_replaces_a_directory(preprocess, made, output, tmp_path):
    sources = [made / "all", shutil.copytree(made / "all", tmp_path / "again")]
    merge(sources, tmp_path / "merged")
    refused(preprocess("merge", *sources, "--output", output), 2, "give --overwrite")
    assert preprocess("merge", *sources, "--output", output, "--overwrite")[0] == 0
    assert contents(output) == contents(tmp_path / "merged")
    assert alone(output)
    add(output, "notes.txt")
    before = contents(output)
    refused(preprocess("merge", *sources, "--output", output, "--overwrite"), 2, "notes.txt: no job wrote this")
    assert contents(output) == before


def test_a_second_job_is_refused_while_one_overwrites(source, made, output, tmp_path):
    before = contents(output)
    held = Held(tmp_path / "held")
    words = ["run", source, *OPTIONS, "--train-on", "last", "--output", output, "--overwrite"]
    first = start(*words, env={**os.environ, **held.environment})
    held.wait(first)
    assert "another job writes" in error_line(call(*words, status=1).stderr)
    assert contents(output) == before
    held.go()
    _, err = first.communicate()
    assert first.returncode == 0, err
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_a_mount_point_is_refused_before_anything_is_done(source, made, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    words = ["run", source, *OPTIONS, "--output", output]
    call_line = [sys.executable, "-m", "sft_shards.preprocess.cli", *map(str, words)]
    script = 'mount -t tmpfs -o size=64m none "$1" && shift && "$@" && ! "$@" --overwrite'
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run(
        [*namespace, "sh", "-c", script, "sh", str(output), *call_line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{output}: is a mount point" in error_line(done.stderr)


@pytest.mark.parametrize("name", [".out.overwrite", ".out.replaced"])
def test_a_folder_of_others_in_the_way_is_left_alone(preprocess, source, output, name):
    add(output.parent / name, "thesis.tex")
    result = preprocess("run", source, *OPTIONS, "--train-on", "last", "--output", output, "--overwrite")
    refused(result, 2, output.parent / name, "in the way of --overwrite")
    assert (output.parent / name / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("step", ["finalize", "task", "run"])
def test_killed_between_two_steps_the_next_call_takes_the_second(preprocess, made, source, output, monkeypatch, step):
    """Where folders cannot be exchanged: the old directory was moved away, and the new one has no name yet."""
    plan = [source, *OPTIONS, "--train-on", "last"]
    assert preprocess("plan", *plan, "--output", output, "--overwrite")[0] == 0
    assert preprocess("task", "--output", output)[0] == 0
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(replacement, "_exchange", full)
        refused(preprocess("finalize", "--output", output), 1, output, "No space left")
    assert contents(output) == contents(made / "all")
    output.rename(output.with_name(".out.replaced"))
    words = [step, *plan, "--overwrite"] if step == "run" else [step]
    assert preprocess(*words, "--output", output)[0] == 0
    assert contents(output) == contents(made / "last")
    assert alone(output)


def test_an_old_directory_that_was_moved_away_alone_comes_back(preprocess, made, output):
    output.rename(output.with_name(".out.replaced"))
    assert preprocess("finalize", "--output", output)[0] == 0
    assert contents(output) == contents(made / "all")
    assert alone(output)
