"""A full disk, a disk that cannot be written, sources that change or vanish, clocks that jump, two jobs in one folder,
Ctrl-C: one clear line each, nothing published, and the same call goes on when the trouble is over."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from preprocess_jobs import GUARD, INPUTS, SMALL, Held, call, command, contents, error_line, start


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "out"
    call("run", *INPUTS, *SMALL, "--output", output, "--workers", 1)
    return contents(output)


def on_a_disk(folder: Path, mount: str, *calls: tuple[list[str], int], then: str = "") -> list[str]:
    """Run calls one after the other where `folder` is a small file system that this test alone can see.

    Gives what each wrote to standard error. `then` is a shell line between the calls.
    """
    import shlex

    lines = [f"mount {mount} {shlex.quote(str(folder))}"]
    for number, (arguments, status) in enumerate(calls):
        lines += [
            f"{shlex.join(arguments)} 2>{folder.parent}/error{number} || got=$?",
            f'[ "${{got:-0}}" = {status} ] || {{ echo "call {number}: exit ${{got:-0}}" >&2; exit 99; }}; got=0',
            f"ls -aR {folder} > {folder.parent}/tree{number}",
            then,
        ]
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run(
        [*namespace, "sh", "-c", "set -u; got=0; " + "\n".join(lines)],
        capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    errors = [(folder.parent / f"error{number}").read_text() for number in range(len(calls))]
    assert done.returncode == 0, done.stderr + "\n".join(errors)
    return errors


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path, workers):
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = command("run", *INPUTS, *SMALL, "--output", disk / "out", "--workers", workers)
    [first, second, _, _] = on_a_disk(
        disk,
        "-t tmpfs -o size=900k none",
        (arguments, 1),
        (arguments, 1),
        (["mount", "-o", "remount,size=64m", str(disk)], 0),
        (arguments, 0),
    )
    for error in (first, second):
        assert "No space left on device" in error_line(error)
        assert "free the disk" in error_line(error)
    for tree in ("tree0", "tree1"):
        assert "manifest.json" not in (tmp_path / tree).read_text()
    assert "manifest.json" in (tmp_path / "tree3").read_text()
    assert ".work" not in (tmp_path / "tree3").read_text()


@pytest.mark.process
def test_an_output_that_cannot_be_written(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = command("run", *INPUTS, *SMALL, "--output", disk / "out")
    [error] = on_a_disk(disk, "-t tmpfs -o ro,size=1m none", (arguments, 1))
    assert "Read-only file system" in error_line(error)
    assert str(disk / "out") in error_line(error)
    # It becomes so in the middle of a job.
    plan = command("plan", *INPUTS, *SMALL, "--output", disk / "out")
    closed = ["mount", "-o", "remount,ro", str(disk)]
    task, last = (command(name, "--output", disk / "out") for name in ("task", "finalize"))
    errors = on_a_disk(disk, "-t tmpfs -o size=64m none", (plan, 0), (task, 0), (closed, 0), (task, 1), (last, 1))
    for error in errors[3:]:
        assert "Read-only file system" in error_line(error)
    assert "manifest.json" not in (tmp_path / "tree4").read_text()


@pytest.fixture
def sources(tmp_path):
    for path in INPUTS:
        shutil.copy(path, tmp_path)
    return [tmp_path / path.name for path in INPUTS]


@pytest.mark.process
def test_a_source_that_changes_or_goes_between_plan_and_task(tmp_path, sources):
    output = tmp_path / "out"
    call("plan", *sources, *SMALL, "--output", output)
    with open(sources[0], "ab") as file:
        file.write(b"\n")
    for workers in (1, 2):
        line = error_line(call("task", "--output", output, "--workers", workers, status=1).stderr)
        assert f"{sources[0]}: changed since the job was planned; plan again with --overwrite" in line
    line = error_line(call("run", *sources, *SMALL, "--output", output, status=2).stderr)
    assert "sources[0].bytes" in line
    sources[0].unlink()
    line = error_line(call("task", "--output", output, status=1).stderr)
    assert f"{sources[0]}: gone since the job was planned" in line
    call("finalize", "--output", output, status=1)
    assert not (output / "manifest.json").exists()


@pytest.mark.unit
def test_a_source_that_changes_while_it_is_read(tmp_path, sources):
    from sft_shards.preprocess.sources import PartReader, cut, find_sources

    [source] = find_sources([str(sources[1])])
    reader = PartReader(source, cut(source, 1 << 30)[0])
    batches = reader.batches()
    next(batches)
    os.utime(sources[1], ns=(0, source.mtime_ns + 1))
    with pytest.raises(ValueError, match="changed since the job was planned"):
        list(batches)


JUMPY = """
import random, sys, time
dice = random.Random(1)
for name in ("time", "time_ns"):
    setattr(time, name, lambda scale=1 if name == "time" else 10**9: type(scale)(dice.randrange(4 * 10**9) * scale))
from sft_shards.preprocess.cli import main
main()
"""


@pytest.mark.process
def test_a_clock_that_jumps(tmp_path, reference):
    """Between steps, within a step, and in the times that files carry."""
    output = tmp_path / "out"
    script = tmp_path / "jumpy.py"
    script.write_text(JUMPY)

    def jumpy(*arguments):
        subprocess.run([sys.executable, script, *map(str, arguments)], check=True, timeout=GUARD, capture_output=True)

    def touch(moment):
        for path in [output, *output.rglob("*")]:
            os.utime(path, (moment, moment))

    jumpy("plan", *INPUTS, *SMALL, "--output", output)
    touch(4e9)
    jumpy("task", "--output", output, "--rank", 0, "--world-size", 2)
    touch(1)
    jumpy("task", "--output", output)
    touch(3e9)
    jumpy("finalize", "--output", output)
    assert contents(output) == reference


@pytest.mark.process
def test_a_second_job_in_one_folder_is_refused_and_the_first_is_not_disturbed(tmp_path, reference):
    output = tmp_path / "out"
    held = Held(tmp_path / "held")
    first = start("run", *INPUTS, *SMALL, "--output", output, "--workers", 1, env={**os.environ, **held.environment})
    held.wait(first)
    for arguments in (
        ["run", *INPUTS, *SMALL, "--output", output],
        ["run", *INPUTS, *SMALL, "--output", output, "--overwrite"],
        ["run", INPUTS[0], *SMALL, "--output", output],
        ["task", "--output", output],
    ):
        line = error_line(call(*arguments, status=1).stderr)
        assert f"{output}: another job writes to this folder (process {first.pid} on " in line
    held.go()
    _, err = first.communicate(timeout=GUARD)
    assert first.returncode == 0, err
    assert contents(output) == reference


UNLOCKED = """
import errno, fcntl
def without(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = without
from sft_shards.preprocess.cli import main
main()
"""


@pytest.mark.process
def test_two_jobs_in_one_folder_without_locks_do_no_harm(tmp_path, reference):
    """On a file system that has no locks both run: whoever is last finds its work done, and the bytes are right."""
    script = tmp_path / "unlocked.py"
    script.write_text(UNLOCKED)
    arguments = list(map(str, [*INPUTS, *SMALL]))
    for number in range(3):
        output = tmp_path / f"out{number}"
        both = [
            subprocess.Popen(
                [sys.executable, str(script), "run", *arguments, "--output", str(output), "--workers", "1"],
                stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        ends = [(process.communicate(timeout=GUARD)[1], process.returncode) for process in both]
        assert 0 in [status for _, status in ends], ends
        for error, status in ends:
            if status:
                assert error_line(error)
        if (output / ".work").exists():
            call("finalize", "--output", output)
        assert contents(output) == reference


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_with_130_and_the_same_argumentsgoes_on(tmp_path, reference, workers):
    output = tmp_path / "out"
    held = Held(tmp_path / "held")
    arguments = ["run", *INPUTS, *SMALL, "--output", output, "--workers", workers]
    process = start(*arguments, env={**os.environ, **held.environment})
    held.wait(process, workers)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 130, err
    assert "interrupted; the same command goes on where it stopped" in error_line(err)
    assert not (output / "manifest.json").exists()
    call("run", *INPUTS, *SMALL, "--output", output)
    assert contents(output) == reference


@pytest.mark.process
def test_standard_input_goes_through_a_job_that_was_stopped(tmp_path):
    text = INPUTS[1].read_text("utf-8")
    call("run", INPUTS[1], *SMALL, "--output", tmp_path / "file")
    call("plan", "-", *SMALL, "--output", tmp_path / "out", input=text)
    call("task", "--output", tmp_path / "out", "--index", 0)
    assert "not what the unfinished job was given" in error_line(
        call("run", "-", *SMALL, "--output", tmp_path / "out", input="{}\n", status=2).stderr
    )
    call("run", "-", *SMALL, "--output", tmp_path / "out", stdin=subprocess.DEVNULL)
    one, other = contents(tmp_path / "file"), contents(tmp_path / "out")
    assert {path: one[path] for path in one if path.endswith((".bin", ".idx"))} == {
        path: other[path] for path in other if path.endswith((".bin", ".idx"))
    }
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert [source["path"] for source in manifest["sources"]] == ["-"]


@pytest.mark.process
def test_a_argumentsthat_is_wrong_leaves_nothing_behind(tmp_path):
    call("run", tmp_path / "gone.jsonl", *SMALL, "--output", tmp_path / "out", status=2)
    (tmp_path / "bad.json").write_text('[\n{"instruction": "a", "output": "b"}\n')
    line = error_line(call("run", tmp_path / "bad.json", *SMALL, "--output", tmp_path / "out", status=1).stderr)
    assert "ends in the middle" in line
    assert not (tmp_path / "out").exists()
