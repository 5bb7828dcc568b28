"""Every command that writes a directory, killed before any of its changes of the disk, and on a disk that is full.

What is there afterwards is what was there before, or complete; the same call goes on and gives the bytes that it gives
undisturbed. The changes are system calls, seen by ptrace; a few of each command are tried, evenly spread, and all of
them with `--every-change` (`make chaos`).
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk_calls import NEEDS_ROOM, preprocess, watched
from preprocess_jobs import INPUTS, TOKENIZER, call, contents, error_line

pytestmark = pytest.mark.process

SAMPLE = 5
"""Changes of each command that are tried in a run of all tests."""
OPTIONS = ["--tokenizer", TOKENIZER, "--shard-tokens", 2500, "--workers", 1]
CASES = ("run", "steps", "finalize", "dedup", "extend", "overwrite", "merge", "merge-overwrite")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, and the folder that it finds and changes."""

    start: Path
    commands: list[list[object]]
    """With `{}` for that folder."""
    old: dict[str, str]
    """Contents of the complete directory that is there before; empty without one."""

    def words(self, folder):
        return [[str(word).replace("{}", str(folder)) for word in words] for words in self.commands]


@pytest.fixture(scope="module")
def made(memory):
    """Inputs and directories that the commands begin with."""
    folder = memory / "made"
    folder.mkdir()
    lines = INPUTS[1].read_bytes().splitlines(keepends=True)
    for name, some in (("short", lines[:20]), ("long", lines[:24]), ("other", lines[24:30]), ("twice", lines[:9] * 2)):
        (folder / f"{name}.jsonl").write_bytes(b"".join(some))
    for name in ("short", "long", "other"):
        call("run", folder / f"{name}.jsonl", *OPTIONS, "--output", folder / name)
    # Grown from `short`: the same file, longer.
    shutil.copy(folder / "short.jsonl", folder / "grown.jsonl")
    call("run", folder / "grown.jsonl", *OPTIONS, "--output", folder / "older")
    shutil.copy(folder / "long.jsonl", folder / "grown.jsonl")
    return folder


@pytest.fixture(scope="module")
def cases(made):
    start = made / "start"
    for name in CASES:
        (start / name).mkdir(parents=True)
    words = [*OPTIONS, "--output", "{}/out"]
    call("plan", made / "long.jsonl", *OPTIONS[:-2], "--output", start / "finalize" / "out")
    call("task", "--output", start / "finalize" / "out")
    for name in ("overwrite", "merge-overwrite"):
        shutil.copytree(made / "short", start / name / "out")
    merge = ["merge", made / "long", made / "other", "--output", "{}/out"]
    steps = [["plan", made / "long.jsonl", *OPTIONS[:-2], "--output", "{}/out"], ["task", "--output", "{}/out"]]
    finalize = ["finalize", "--output", "{}/out"]
    commands = {
        "run": [["run", made / "long.jsonl", *words, "--valid-fraction", 0.2]],
        "steps": [*steps, finalize],
        "finalize": [finalize],
        "dedup": [["run", made / "twice.jsonl", *words, "--dedup"]],
        "extend": [["run", made / "grown.jsonl", *words, "--extend", made / "older"]],
        "overwrite": [["run", made / "long.jsonl", *words, "--overwrite"]],
        "merge": [merge],
        "merge-overwrite": [[*merge, "--overwrite"]],
    }
    return {
        name: Case(start=start / name, commands=commands[name], old=without_work(start / name / "out"))
        for name in CASES
    }


@pytest.fixture(scope="module")
def undisturbed(cases, memory):
    """By case, what a command does and leaves where nothing happens; made when it is asked for."""
    known = {}

    def of(name):
        if name not in known:
            folder = memory / "undisturbed" / name / "folder"
            folder.parent.mkdir(parents=True)
            known[name] = attempt(cases[name], folder), contents(folder)
            assert (known[name][0].status, set(os.listdir(folder))) == (0, {"out"}), known[name]
        return known[name]

    return of


def without_work(output):
    """Contents of a directory with a manifest, without what its job has not removed; else nothing."""
    if not (output / "manifest.json").exists():
        return {}
    return {path: digest for path, digest in contents(output).items() if not path.startswith(".work")}


def attempt(case, folder, **trouble):
    """Give the commands of a case in a folder as it is at first."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case.start, folder)
    return watched(preprocess, case.words(folder), below=folder, **trouble)


def again(case, folder):
    return watched(preprocess, case.words(folder), below=folder)


def chosen(count, every):
    """Numbers of the changes that are tried, out of 1 … count."""
    return range(1, count + 1) if every else sorted({1 + at * (count - 1) // (SAMPLE - 1) for at in range(SAMPLE)})


def whole(case, folder, new):
    """Whether the directory is the old one, the new one, or not there yet."""
    new = {path.removeprefix("out/"): digest for path, digest in new.items()}
    return without_work(folder / "out") in (case.old, new)


@pytest.mark.parametrize("name", [name for name in CASES if name != "finalize"])  # other processes made its tasks
def test_everything_is_on_disk_before_the_manifest_has_its_name(undisturbed, name):
    """And everything of a task before its folder has, and of a directory before it replaces another."""
    done, _ = undisturbed(name)
    assert done.early == []
    assert any(call.startswith("rename") and call.endswith("manifest.json") for call in done.calls)


@pytest.mark.parametrize("name", CASES)
def test_killed_before_a_change_the_same_call_goes_on(cases, undisturbed, memory, pytestconfig, name):
    done, expected = undisturbed(name)
    case, folder = cases[name], memory / "folder"
    for number in chosen(len(done.calls), pytestconfig.getoption("every_change")):
        killed = attempt(case, folder, kill_before=number)
        where = f"{name}, change {number}: {killed.calls[-1]}"
        assert killed.status == -9, where
        assert whole(case, folder, expected), where
        last = again(case, folder)
        assert (last.status, contents(folder) == expected) == (0, True), (where, last.error)


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_is_one_line_and_the_same_call_goes_on(cases, undisturbed, memory, pytestconfig, name):
    done, expected = undisturbed(name)
    case, folder = cases[name], memory / "folder"
    needing = [number for number, call in enumerate(done.calls, 1) if call.split()[0] in NEEDS_ROOM]
    for at in chosen(len(needing), pytestconfig.getoption("every_change")):
        number = needing[at - 1]
        full = attempt(case, folder, full_from=number)
        where = f"{name}, full from change {number}: {done.calls[number - 1]}"
        assert full.status in (0, 1), (where, full.error)
        if full.status == 1:
            assert "No space left on device" in error_line(full.error), where
        assert whole(case, folder, expected), where
        last = again(case, folder)
        assert (last.status, contents(folder) == expected) == (0, True), (where, last.error)
