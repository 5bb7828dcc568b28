"""A real Slurm of two nodes: arrays of two sizes, a node lost in the middle, a failed element; the same bytes always."""

import re
import sys
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, SMALL, Held, call, contents, error_line
from slurm_cluster import SlurmCluster
from template_texts import ARGUED

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with SlurmCluster(tmp_path_factory.mktemp("cluster") / "slurm") as running:
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "out"
    call("run", *INPUTS, *SMALL, "--output", output, "--workers", 1)
    return contents(output)


def submit(cluster, output, *options, **changes):
    done = call("run", *INPUTS, *SMALL, "--output", output, "--engine", "slurm", *options,
                env={**cluster.environment, **changes})  # fmt: skip
    return re.search(r"submitted (\d+) .*, then (\d+) to publish", done.stdout).groups()


@pytest.mark.parametrize("array", [2, 5])
def test_arrays_of_any_size_give_the_same_bytes(cluster, tmp_path, reference, array):
    output = tmp_path / "out"
    done = call("run", *INPUTS, *SMALL, "--output", output, "--engine", "slurm", "--array", array, "--follow",
                "--slurm-option", "partition=cpu", "--slurm-option", "time=10", env=cluster.environment)  # fmt: skip
    assert f"wrote {output}" in done.stdout
    assert contents(output) == reference
    assert "wrote" in next(tmp_path.glob("out.finalize-*.log")).read_text()


def test_a_node_that_is_killed_in_the_middle_changes_no_byte(cluster, tmp_path, reference):
    output = tmp_path / "out"
    held = Held(tmp_path / "held")
    tasks, last = submit(cluster, output, "--array", 2, **held.environment)
    held.wait(count=2)  # both elements have begun, and neither is through its share
    assert cluster.run("squeue", "-h", "-j", tasks, "-t", "RUNNING", "-o", "%N").split() != []
    cluster.kill_node("n1")
    held.go()
    assert not (output / "manifest.json").exists()
    cluster.start_node("n1")
    cluster.run("scontrol", "update", "NodeName=n1", "State=RESUME", check=False)
    cluster.await_end(tasks, last)
    assert contents(output) == reference


def test_an_element_that_fails_strands_nobody_and_the_same_call_mends_it(cluster, tmp_path, reference):
    output = tmp_path / "out"
    setup = f'test "${{SLURM_ARRAY_TASK_ID:-}}" != 1 || test "${{1:-}}" = finalize || test -e {tmp_path}/mended'
    # With a setup of the site's own, the command is the one on the path.
    programs = Path(sys.executable).parent
    tasks, last = submit(cluster, output, "--array", 2, "--slurm-setup", f"PATH={programs}:$PATH\n{setup}")
    cluster.await_end(tasks, last)
    assert not (output / "manifest.json").exists()
    log = next(tmp_path.glob("out.finalize-*.log")).read_text()
    assert "tasks are not finished; make them with: sft-preprocess task" in log
    done = call("run", *INPUTS, *SMALL, "--output", output, "--engine", "slurm", "--array", 3, "--follow",
                env=cluster.environment)  # fmt: skip
    assert "wrote" in done.stdout
    assert contents(output) == reference


def test_a_directory_is_overwritten_when_the_array_is_done(cluster, tmp_path, reference):
    output = tmp_path / "here" / "out"
    call("run", *INPUTS[:1], *SMALL, "--output", output, "--workers", 1)
    old = contents(output)
    held = Held(tmp_path / "held")
    jobs = submit(cluster, output, "--array", 2, "--overwrite", **held.environment)
    held.wait(count=2)
    assert contents(output) == old
    held.go()
    cluster.await_end(*jobs)
    assert contents(output) == reference
    assert [path.name for path in output.parent.iterdir() if path.suffix != ".log"] == ["out"]


def test_dry_run_prints_the_script_and_submits_nothing(cluster, tmp_path):
    done = call("run", *INPUTS, *SMALL, "--output", tmp_path / "out", "--engine", "slurm", "--array", 7, "--dry-run",
                "--workers", 3, "--slurm-option", "account=lab", "--slurm-option", "exclusive", "--max-rejects", "5%",
                "--slurm-option", "container=image", "--slurm-option", "comment=two words",
                env=cluster.environment)  # fmt: skip
    for line in ("#SBATCH --array=0-6", "#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --account=lab",
                 "#SBATCH --cpus-per-task=3", "#SBATCH --exclusive", "#SBATCH --container=image",
                 "#SBATCH --comment='two words'"):  # fmt: skip
        assert line in done.stdout.splitlines()
    assert "exec sft-preprocess finalize --output" in done.stdout
    assert "--max-rejects 5%" in done.stdout
    assert not (tmp_path / "out").exists()


def test_what_slurm_refuses_and_a_machine_without_slurm(cluster, tmp_path):
    arguments = ["run", *INPUTS, *SMALL, "--output", tmp_path / "out", "--engine", "slurm"]
    done = call(*arguments, "--slurm-option", "partition=gone", status=2, env=cluster.environment)
    assert re.search("sbatch refused .*partition.*--slurm-option", error_line(done.stderr))
    done = call(*arguments, status=2, env={"PATH": str(tmp_path)})
    assert "no sbatch on this machine" in error_line(done.stderr)


def test_no_node_needs_the_template_file(cluster, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text(ARGUED, "utf-8")
    words = [INPUTS[1], *SMALL, "--template", template, "--template-arg", "enable_thinking=false"]
    call("run", *words, "--output", tmp_path / "reference", "--workers", 1)
    done = call("run", *words, "--output", tmp_path / "out", "--engine", "slurm", "--array", 2,
                env=cluster.environment)  # fmt: skip
    template.unlink()
    cluster.await_end(*re.search(r"submitted (\d+) .*, then (\d+) to publish", done.stdout).groups())
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")
