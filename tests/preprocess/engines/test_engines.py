"""One, two, three workers, shares of a scheduler and Ray: the same bytes; a worker that dies costs its own task."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys

import pytest
from preprocess_jobs import GUARD, INPUTS, SMALL, Held, call, contents, error_line, start

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.preprocess.engines.task_share import Share, find_share
from sft_shards.preprocess.tasks.lock import job_lock, leave_locks


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The job in one process; what every other way must give."""
    output = tmp_path_factory.mktemp("reference") / "out"
    call("run", *INPUTS, *SMALL, "--output", output, "--workers", 1)
    found = contents(output)
    assert len(found) > 100
    return found


@pytest.mark.process
@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_no_byte(tmp_path, reference, workers):
    call("run", *INPUTS, *SMALL, "--output", tmp_path / "out", "--workers", workers)
    assert contents(tmp_path / "out") == reference


@pytest.mark.process
def test_workers_of_a_command_begin_with_what_it_has_loaded(tmp_path, reference):
    done = call_with(SHARED, tmp_path, "run", *INPUTS, *SMALL, "--output", tmp_path / "out", "--workers", 3)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == reference


@pytest.mark.process
def test_a_backend_that_has_encoded_encodes_in_workers_too(tmp_path):
    """Without a cache, texts are encoded by fastokens to compare it, before workers are forked."""
    pytest.importorskip("fastokens")
    options = [*INPUTS, *SMALL, "--tokenizer-engine", "fastokens", "--no-cache"]
    call("run", *options, "--output", tmp_path / "one", "--workers", 1)
    call("run", *options, "--output", tmp_path / "two", "--workers", 2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.process
def test_workers_of_another_program_give_the_same_bytes(tmp_path, reference):
    """It may have threads, so its workers are not copies of it."""
    arguments = ("run", *INPUTS, *SMALL, "--output", tmp_path / "out", "--workers", 2)
    done = call_with(FORKLESS, tmp_path, *arguments, program=PROGRAM)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == reference


@pytest.mark.process
def test_a_command_that_is_killed_leaves_neither_workers_nor_a_lock(tmp_path, reference):
    output = tmp_path / "out"
    held = Held(tmp_path / "held")
    arguments = ["run", *INPUTS, *SMALL, "--output", output, "--workers", 2]
    process = start(*arguments, env={**os.environ, **held.environment})
    workers = held.wait(process, 2)
    process.kill()
    process.communicate(timeout=GUARD)  # until nobody has its standard output
    assert not [number for number in workers if os.path.exists(f"/proc/{number}/fd/1")]
    call(*arguments)
    assert contents(output) == reference


def leave(connection):
    leave_locks()
    connection.send("left")
    connection.recv()


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_lock_ends_with_the_process_that_took_it(tmp_path):
    (tmp_path / ".work").mkdir()
    ours, theirs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    with job_lock(tmp_path):
        copy = fork.Process(target=leave, args=(theirs,), daemon=True)
        copy.start()
        assert ours.recv() == "left"
        with pytest.raises(DataError, match="another job writes to this folder"), job_lock(tmp_path):
            pass
    with job_lock(tmp_path):
        assert copy.is_alive()
    ours.send("end")
    copy.join()


@pytest.mark.process
def test_ray_gives_the_same_bytes(tmp_path, reference):
    call("run", *INPUTS, *SMALL, "--output", tmp_path / "out", "--engine", "ray", "--workers", 2)
    assert contents(tmp_path / "out") == reference


@pytest.mark.process
@pytest.mark.parametrize("words", [["--workers", 2], ["--engine", "ray", "--workers", 2]])
def test_a_directory_is_overwritten_by_several_workers(tmp_path, reference, words):
    output = tmp_path / "here" / "out"
    call("run", *INPUTS[:1], *SMALL, "--output", output, "--workers", 1)
    call("run", *INPUTS, *SMALL, "--output", output, *words, "--overwrite")
    assert contents(output) == reference
    assert os.listdir(output.parent) == ["out"]


@pytest.mark.process
def test_an_address_where_no_ray_is(tmp_path):
    arguments = ["--engine", "ray", "--ray-address", "127.0.0.1:1"]
    done = call("run", *INPUTS, *SMALL, "--output", tmp_path / "out", *arguments, status=2)
    assert re.search(r"--ray-address 127\.0\.0\.1:1: no Ray there", error_line(done.stderr))


@pytest.mark.process
@pytest.mark.parametrize("world", [2, 5])
def test_shares_of_any_number_of_processes_give_the_same_bytes(tmp_path, reference, world):
    output = tmp_path / "out"
    call("plan", *INPUTS, *SMALL, "--output", output)
    running = [start("task", "--output", output, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)})
               for rank in range(world)]  # fmt: skip
    for process in running:
        _, err = process.communicate(timeout=GUARD)
        assert process.returncode == 0, err
    call("finalize", "--output", output)
    assert contents(output) == reference
    call("finalize", "--output", output)
    call("task", "--output", output)
    assert contents(output) == reference


@pytest.mark.process
def test_workers_that_die_cost_nothing_but_time(tmp_path, reference):
    output = tmp_path / "out"
    held = Held(tmp_path / "held")
    arguments = ["run", *INPUTS, *SMALL, "--output", output, "--workers", 2]
    process = start(*arguments, env={**os.environ, **held.environment})
    killed = set()
    while len(killed) < 4:  # each in the middle of its second task; whoever takes its place is held there as well
        (worker, *_) = held.wait(process, len(killed) + 1) - killed
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    held.go()
    _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 0, err
    assert contents(output) == reference


POISON = """
import os, signal
import sft_shards.preprocess.engines.worker as worker

true_run = worker.Job.run
def run(self, number, report):
    if number == int(os.environ["POISON"]):
        os.write(2, os.environ.get("WORDS", "").encode())
        os.kill(os.getpid(), getattr(signal, os.environ.get("SIGNAL", "SIGKILL")))
    true_run(self, number, report)
worker.Job.run = run
"""
"""One task kills every worker that takes it, the others are as ever."""
UNLOADED = """
import sys
if "forkserver" in " ".join(sys.orig_argv):
    sys.modules["sft_shards.preprocess.engines.worker"] = None
"""
"""In the server of workers, a module that they need cannot be imported."""
SHARED = """
import sft_shards.preprocess.engines.worker as worker

def refuse(*arguments):
    raise SystemExit("a worker loads for itself")
worker.planned_pipeline = refuse
"""
"""No worker can load a job."""
FORKLESS = """
import os, sys
if "forkserver" not in " ".join(sys.orig_argv):
    os.fork = None
"""
"""The first process cannot be forked."""
PROGRAM = ("-c", "from sft_shards.preprocess.cli import main; main()")
"""Not the command, but a program that calls this package."""
OTHER_VERSIONS = """
import sft_shards.preprocess.engines.worker as worker
from sft_shards.formats.errors import DataError

def refuse(_plan):
    raise DataError("other versions here")
worker.check_versions = refuse
"""


def call_with(customization, folder, *arguments, program=("-m", "sft_shards.preprocess.cli"), **environment):
    """The command, or another program, in whose processes Python runs this code when it starts."""
    (folder / "sitecustomize.py").write_text(customization)
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(folder), **environment}, capture_output=True, text=True, timeout=GUARD,
        check=False,
    )  # fmt: skip


@pytest.mark.process
def test_a_task_that_kills_its_workers_fails_after_three_and_the_others_are_not_charged(tmp_path, reference):
    output = tmp_path / "out"
    done = call_with(POISON, tmp_path, "run", *INPUTS, *SMALL, "--output", output, "--workers", 2, POISON="3")
    assert done.returncode == 1
    assert re.search(r"chatml_zh\.jsonl: task 3 lost its worker 3 times; out of memory\?", error_line(done.stderr))
    assert not (output / "manifest.json").exists()
    assert not (output / ".work" / "tasks" / "00003").exists()
    assert len(list((output / ".work" / "tasks").iterdir())) > 3
    call("run", *INPUTS, *SMALL, "--output", output, "--workers", 1)
    assert contents(output) == reference


@pytest.mark.process
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"WORDS": "x.so: no symbol\n\n", "SIGNAL": "SIGABRT"}, r"\(killed by SIGABRT: x\.so: no symbol\); run with"),
        ({"WORDS": "oom: bye\n"}, r"\(killed by SIGKILL: oom: bye\); run with --workers 1"),
        ({"SIGNAL": "SIGSEGV"}, r"\(killed by SIGSEGV: it wrote nothing to standard error\)"),
    ],
)
def test_the_last_words_of_a_dead_worker_are_shown(tmp_path, changes, match):
    arguments = ("run", *INPUTS[:1], *SMALL, "--output", tmp_path / "out", "--workers", 2)
    done = call_with(POISON, tmp_path, *arguments, POISON="1", **changes)
    assert done.returncode == 1
    assert re.search(f"task 1 lost its worker 3 times {match}", error_line(done.stderr)), done.stderr
    assert done.stderr.count(changes.get("WORDS", "").strip() or "lost its worker") >= 1


@pytest.mark.process
def test_a_worker_that_cannot_even_start_says_why(tmp_path):
    arguments = ("run", *INPUTS[:1], *SMALL, "--output", tmp_path / "out", "--workers", 2)
    done = call_with(UNLOADED, tmp_path, *arguments, program=PROGRAM)
    assert done.returncode == 1
    line = [line for line in done.stderr.splitlines() if line.startswith("sft-preprocess: ")][-1]
    assert re.search(r"lost its worker 3 times \(exit status 1: ModuleNotFoundError: import of sft_shards", line)


@pytest.mark.process
def test_an_error_while_a_worker_loads_the_job_is_the_error_of_the_call(tmp_path):
    output = tmp_path / "out"
    call("plan", *INPUTS[:1], *SMALL, "--output", output)
    done = call_with(OTHER_VERSIONS, tmp_path, "task", "--output", output, "--workers", 2)
    assert done.returncode == 1
    assert error_line(done.stderr) == "sft-preprocess: other versions here"


@pytest.mark.process
def test_what_is_missing_is_listed_with_the_command_that_makes_it(tmp_path, reference):
    output = tmp_path / "out"
    call("plan", *INPUTS, *SMALL, "--output", output)
    call("task", "--output", output, "--rank", 0, "--world-size", 2)
    line = error_line(call("finalize", "--output", output, status=1).stderr)
    assert not (output / "manifest.json").exists()
    count, command = re.search(
        r"(\d+) of \d+ tasks are not finished; make them with: sft-preprocess (.*)$", line
    ).groups()
    assert int(count) > 5
    call(*command.partition(" (and")[0].split())
    call("task", "--output", output)
    damaged = next((output / ".work" / "tasks" / "00000").rglob("tokens.bin"))
    damaged.write_bytes(damaged.read_bytes()[:-2])
    assert "--index 0" in error_line(call("finalize", "--output", output, status=1).stderr)
    call("task", "--output", output, "--index", 0)
    assert json.loads(call("finalize", "--output", output, "--json").stdout)["counts"]["rejected"]
    assert contents(output) == reference


@pytest.mark.process
def test_several_that_finalize_at_once_all_find_the_directory_complete(tmp_path, reference):
    output = tmp_path / "out"
    waiting = [start("finalize", "--output", output, "--wait", GUARD) for _ in range(3)]
    call("plan", *INPUTS, *SMALL, "--output", output)
    call("task", "--output", output)
    for process in waiting:
        _, err = process.communicate(timeout=GUARD)
        assert process.returncode == 0, err
    assert contents(output) == reference


@pytest.mark.process
def test_another_plan_is_refused_with_what_differs(tmp_path):
    output = tmp_path / "out"
    call("plan", *INPUTS, *SMALL, "--output", output)
    call("plan", *INPUTS, *SMALL, "--output", output)
    line = error_line(call("run", *INPUTS, *SMALL, "--output", output, "--train-on", "last", status=2).stderr)
    assert 'config.train_on: "all" → "last"' in line
    line = error_line(call("plan", *INPUTS[:2], *SMALL, "--output", output, status=2).stderr)
    assert "config.inputs" in line
    assert re.search("no planned job", error_line(call("task", "--output", tmp_path / "other", status=2).stderr))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3)),
        ({"JOB_COMPLETION_INDEX": "1", "JOB_COMPLETIONS": "4", "RANK": "0", "WORLD_SIZE": "9"}, (1, 4)),
        ({"SLURM_JOB_ID": "7", "RANK": "1", "WORLD_SIZE": "2", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (0, 1)),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, (3, 4)),
        ({"SLURM_JOB_ID": "7", "ARRAY": "5 3 9 4 2"}, (1, 4)),
        ({"SLURM_JOB_ID": "7", "ARRAY": "9 9 9 1 1"}, (0, 1)),
        ({"SLURM_JOB_ID": "7", "ARRAY": "1 0 1 2 1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, (3, 4)),
    ],
)
def test_the_share_that_a_scheduler_gives(environment, share):
    environment = dict(environment)
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    for name, value in zip(names, environment.pop("ARRAY", "").split(), strict=False):
        environment[f"SLURM_ARRAY_TASK_{name}"] = value
    found = find_share(None, None, environment)
    assert (found.rank, found.world_size) == share


@pytest.mark.unit
def test_shares_that_do_not_fit():
    for rank, world, environment, match in (
        (1, None, {}, "give both or neither"),
        (3, 3, {}, "from 0 to 2"),
        (None, None, {"RANK": "1"}, "WORLD_SIZE is not"),
        (None, None, {"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one': must be a number"),
        (None, None, {"SLURM_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1",
                      "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "3"}, "evenly spaced"),
    ):  # fmt: skip
        if match == "evenly spaced":
            assert find_share(rank, world, environment) == Share(rank=1, world_size=3)
            environment["SLURM_ARRAY_TASK_ID"] = "3"
        with pytest.raises(UsageError, match=match):
            find_share(rank, world, environment)
    assert sorted(number for rank in range(5) for number in Share(rank=rank, world_size=5).of(13)) == list(range(13))


@pytest.mark.process
def test_kubernetes_prints_jobs_whose_commands_make_the_directory(tmp_path, reference):
    output = tmp_path / "out"
    done = call("run", *INPUTS, *SMALL, "--output", output, "--engine", "kubernetes", "--array=3", "--claim", "lab")
    tasks, last = json.loads(done.stdout)["items"]
    spec = tasks["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    pod = spec["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "lab"
    environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    waiting = start(*last["spec"]["template"]["spec"]["containers"][0]["command"][1:])
    for index in range(3):
        env = {**environment, "JOB_COMPLETION_INDEX": str(index)}
        for container in (*pod["initContainers"], *pod["containers"]):
            assert container["command"][0] == "sft-preprocess"
            call(*container["command"][1:], env=env)
    _, err = waiting.communicate(timeout=GUARD)
    assert waiting.returncode == 0, err
    assert contents(output) == reference
