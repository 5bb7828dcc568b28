"""Unfinished jobs and shard directories from strangers: links, FIFOs and names that lead out.

Each attack ends with status 1 and one line, nothing outside of the output folder changes, and nothing hangs.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, SMALL, config, contents, error_line

from sft_shards.preprocess.job import Job, finalize_only, run_tasks

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A job whose tasks are all finished, and which nobody has finalized."""
    output = tmp_path_factory.mktemp("planned") / "out"
    Job(config=config(INPUTS[:1]), output=output).plan()
    run_tasks(output, lambda plan: [task.number for task in plan.tasks], workers=1)
    return output


@pytest.fixture(scope="module")
def made(planned, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "out"
    shutil.copytree(planned, output)
    finalize_only(output)
    return output


@pytest.fixture
def job(planned, tmp_path):
    return Path(shutil.copytree(planned, tmp_path / "out"))


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


def refused(preprocess, *words, match):
    status, _, err = preprocess(*words)
    line = error_line(err)
    assert (status, match in line) == (1, True), line


def untouched(outside):
    return os.listdir(outside) == ["secret"] and (outside / "secret").read_bytes() == b"secret"


def swap(path, target):
    """Put a link in place of a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("words", [["finalize"], ["task", "--workers", 1], ["run", INPUTS[0], *SMALL]])
def test_a_link_in_place_of_the_lock_is_not_written_through(preprocess, job, outside, words):
    swap(job / ".work" / "lock", outside / "secret")
    refused(preprocess, *words, "--output", job, match=".work/lock: is a link")
    assert untouched(outside)


def test_a_hard_link_in_place_of_the_lock_is_not_written_through(preprocess, job, outside):
    (job / ".work" / "lock").unlink(missing_ok=True)
    os.link(outside / "secret", job / ".work" / "lock")
    refused(preprocess, "finalize", "--output", job, match="another name of the same file")
    assert untouched(outside)


@pytest.mark.parametrize("extra", [[], ["--overwrite"]])
def test_a_link_in_place_of_work_is_not_followed(preprocess, tmp_path, outside, extra):
    output = tmp_path / "out"
    output.mkdir()
    (output / ".work").symlink_to(outside)
    refused(preprocess, "run", INPUTS[0], *SMALL, "--output", output, *extra, match=".work: is a link")
    assert untouched(outside)


@pytest.mark.parametrize("place", [".work/tokenizer", ".work/tasks"])
def test_a_plan_is_not_written_through_links(preprocess, tmp_path, outside, place):
    output = tmp_path / "out"
    swap(output / place, outside)
    refused(preprocess, "plan", INPUTS[0], *SMALL, "--output", output, match=f"{place}: is a link")
    assert untouched(outside)


@pytest.mark.parametrize("place", ["train", "train/rows", "train/loss_mask", "tokenizer"])
def test_finalize_does_not_write_through_links(preprocess, job, outside, place):
    swap(job / place, outside)
    refused(preprocess, "finalize", "--output", job, match=f"{place}: is a link")
    assert untouched(outside)


def test_tokenizer_files_are_not_written_through_links(preprocess, job, outside):
    swap(job / "tokenizer" / "tokenizer.json", outside / "secret")
    assert preprocess("finalize", "--output", job)[0] == 0
    assert untouched(outside)
    assert not (job / "tokenizer" / "tokenizer.json").is_symlink()


@pytest.mark.parametrize(
    "file", ["receipt.json", "rejects.jsonl", "train/tokens.bin", "train/loss_mask.idx", "train/rows.parquet"]
)
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_a_task_left_is_a_regular_file(preprocess, job, outside, file, kind):
    path = job / ".work" / "tasks" / "00000" / file
    assert path.is_file()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(outside / "secret")
    refused(preprocess, "finalize", "--output", job, match=f"{file}: is a {'FIFO' if kind == 'fifo' else 'link'}")
    assert untouched(outside)


@pytest.mark.parametrize("place", [".work/plan.json", ".work/tokenizer/tokenizer.json", ".work/tokenizer/loaded.npz"])
def test_the_plan_is_read_through_no_link(preprocess, job, outside, place):
    data = (job / place).read_bytes()
    (outside / "secret").write_bytes(data)
    swap(job / place, outside / "secret")
    refused(preprocess, "finalize", "--output", job, match=f"{place}: is a link")


def change(path, alter):
    raw = json.loads(path.read_text("utf-8"))
    alter(raw)
    path.write_text(json.dumps(raw), "utf-8")


@pytest.mark.parametrize(
    ("alter", "match"),
    [
        (lambda raw, out: raw["shards"]["train"]["files"].update({f"{out}/evil.pth": {}}), "bytes is missing"),
        (
            lambda raw, out: raw["shards"]["train"]["files"].update(
                {f"{out}/evil.pth": raw["shards"]["train"]["files"].pop("tokens.bin")}
            ),
            "not a split with the files tokens.bin",
        ),
        (lambda raw, out: raw["shards"].update({"../x": raw["shards"]["train"]}), "not a split with the files"),
        (lambda raw, out: raw.update(records="many"), 'records is "many", not an integer'),
        (lambda raw, out: raw.pop("notes"), "notes is missing"),
        (lambda raw, out: raw.update(schema=99), "schema version 99, this release reads 1"),
    ],
)  # fmt: skip
def test_a_receipt_names_only_what_a_task_writes(preprocess, job, outside, alter, match):
    change(job / ".work" / "tasks" / "00000" / "receipt.json", lambda raw: alter(raw, outside))
    before = contents(job)
    refused(preprocess, "finalize", "--output", job, match=match)
    assert untouched(outside)
    after = contents(job)
    assert {path for path in before if before[path] != after.get(path)} <= {".work/lock"}


@pytest.mark.parametrize(
    ("alter", "match"),
    [
        (lambda raw: raw["tasks"].append([99, 0, 1, 0, 0]), "a task has no source"),
        (lambda raw: raw["tasks"].append([0, 0]), "has 2 items, not 5"),
        (lambda raw: raw["tokenizer_sha256"].update({"../x": "0"}), "is not the name of a file"),
        (lambda raw: raw["config"].update(dedup="yes"), 'config.dedup is "yes", not true or false'),
        (lambda raw: raw["config"].pop("inputs"), "config.inputs is missing"),
        (lambda raw: raw.update(sources={}), "sources is dict, not an array"),
    ],
)
def test_a_plan_is_checked_against_its_types(preprocess, job, alter, match):
    change(job / ".work" / "plan.json", alter)
    refused(preprocess, "finalize", "--output", job, match=match)


@pytest.mark.parametrize("text", [b"", b"[]", b"[" * 99_999, b'{"tasks": null}'])
def test_a_plan_that_is_none_is_one_line(preprocess, job, text):
    (job / ".work" / "plan.json").write_bytes(text)
    refused(preprocess, "task", "--workers", 1, "--output", job, match="not a plan of sft-shards")


@pytest.mark.parametrize("file", ["train/tokens/00000.bin", "train/rows/00000.parquet", "rejects.jsonl", "tokenizer"])
def test_merge_takes_nothing_from_outside(preprocess, made, tmp_path, outside, file):
    """Tokens of somebody else's file, published under our name."""
    one, other = (Path(shutil.copytree(made, tmp_path / name)) for name in ("one", "other"))
    target = outside / "moved"
    os.rename(one / file, target)
    (one / file).symlink_to(target)
    refused(preprocess, "merge", one, other, "--output", tmp_path / "merged", match=f"{file}: is a link")


def test_merge_refuses_a_manifest_with_names_that_lead_out(preprocess, made, tmp_path):
    one, other = (Path(shutil.copytree(made, tmp_path / name)) for name in ("one", "other"))
    import hashlib

    from sft_shards.formats.shards.files import json_bytes

    raw = json.loads((one / "manifest.json").read_text("utf-8"))
    del raw["sha256"]
    shard = raw["splits"]["train"]["shards"][0]
    shard["files"]["tokens/../../../00001.txt"] = shard["files"].pop("tokens/00000.bin")
    raw["sha256"] = hashlib.sha256(json_bytes(raw)).hexdigest()
    (one / "manifest.json").write_bytes(json_bytes(raw))
    refused(preprocess, "merge", one, other, "--output", tmp_path / "merged", match="the files of shard 00000 are not")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("file", ["train/tokens/00000.bin", "train/rows/00000.parquet"])
def test_extend_takes_nothing_from_outside(preprocess, made, tmp_path, outside, file):
    older = Path(shutil.copytree(made, tmp_path / "older"))
    os.rename(older / file, outside / "moved")
    (older / file).symlink_to(outside / "moved")
    words = ["run", INPUTS[0], *SMALL, "--workers", 1, "--extend", older, "--output", tmp_path / "new"]
    refused(preprocess, *words, match=f"{file}: is a link")


@pytest.mark.parametrize("text", [b"[]", b'{"directory": 1, "manifest": "", "tasks": {}}'])
def test_what_may_be_taken_over_is_checked_against_its_types(preprocess, job, text):
    shutil.rmtree(job / ".work" / "tasks" / "00000")
    (job / ".work" / "extend.json").write_bytes(text)
    refused(preprocess, "task", "--workers", 1, "--output", job, match="extend.json: damaged")
