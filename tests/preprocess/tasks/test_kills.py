"""Jobs killed with SIGKILL at any moment, again and again: what is there is complete or says that it is not, and what
comes out in the end is what a job gives that was left alone."""

import multiprocessing
import random
import shutil
import signal
import time

import pytest
from doomed import doomed_job
from preprocess_jobs import INPUTS, call, contents

from sft_shards.formats.shards import Manifest

pytestmark = pytest.mark.process

RUNS = 30
WORKER_RUNS = 8
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["sft_shards.preprocess.engines.forkserver_preload", "sft_shards.preprocess.job"])


def begin(output, workers=1, doomed_step=0, before=True):
    inputs = sorted((output.parents[1] / "inputs").iterdir())
    process = server.Process(target=doomed_job, args=(inputs, output, workers, doomed_step, before))
    process.start()
    return process


@pytest.fixture(scope="module")
def folder(memory):
    folder = memory / "chaos"
    folder.mkdir()
    (folder / "inputs").mkdir()
    for path in INPUTS[:2]:
        lines = path.read_bytes().splitlines(keepends=True)[:40]
        (folder / "inputs" / path.name).write_bytes(b"".join(lines))
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    output = folder / "reference" / "out"
    begin(output).join()  # the first one starts the server
    shutil.rmtree(output)
    process = begin(output)
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return contents(output), time.monotonic() - began


def check(output, expected):
    """After a kill: with a manifest every other file is there and right; temporary files are below .work alone."""
    if not output.exists():
        return
    assert {path.name for path in output.iterdir()} <= {
        ".work", "train", "valid", "tokenizer", "rejects.jsonl", "manifest.json"
    }  # fmt: skip
    published = {path: digest for path, digest in contents(output).items() if not path.startswith(".work")}
    if (output / "manifest.json").exists():
        assert published == expected
        Manifest.read(output)
    assert not [path for path in published if ".tmp" in path or path not in expected]


def published(output):
    """Tasks of a running job that are finished."""
    return len(list((output / ".work" / "tasks").glob("*")))


def finish(output, expected):
    """Run once more, left alone, and see that nothing else is there."""
    if not (output / "manifest.json").exists():
        process = begin(output)
        process.join()
        assert process.exitcode == 0
    elif (output / ".work").exists():
        call("finalize", "--output", output)  # stopped between its manifest and its end
    assert contents(output) == expected
    assert not (output / ".work").exists()


def test_runs_killed_at_random_moments_and_in_the_middle_of_renames(folder, reference):
    expected, seconds = reference
    dice = random.Random(4)
    steps = 2 * len(expected)
    killed = number = 0
    while killed < RUNS:
        output = folder / "random" / f"out{number}"
        number += 1
        for _ in range(dice.randint(2, 8)):
            if dice.random() < 0.6:
                process = begin(output, 1, dice.randint(1, steps), dice.random() < 0.5)
            else:
                process = begin(output)
                process.join(dice.random() * seconds * 1.1)
                process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            check(output, expected)
            if (output / "manifest.json").exists():
                break
        finish(output, expected)


def test_killed_with_several_workers_none_lives_on(folder, reference):
    """The parent is killed while its workers are at work: they end by themselves, and the next run is not disturbed."""
    expected, _ = reference
    dice = random.Random(5)
    output = folder / "workers" / "out"
    number = killed = 0
    while killed < WORKER_RUNS:
        process = begin(output, workers=2)
        goal = published(output) + dice.randrange(5)
        while published(output) < goal and process.is_alive():
            time.sleep(0.002)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        check(output, expected)
        if (output / "manifest.json").exists():
            finish(output, expected)
            number += 1
            output = folder / "workers" / f"out{number}"
    process = begin(output, workers=2)
    process.join()
    if process.exitcode != 0:
        assert (output / "manifest.json").exists()
    finish(output, expected)
