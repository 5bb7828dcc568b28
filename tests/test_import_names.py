"""Import names stand below `sft_shards`: files and folders of the same names beside the data are never imported.

Python puts the working directory, and what PYTHONPATH names, before installed packages. Every test runs a command as
a user does, in a folder whose `trainer.py`, `preprocess.py` and `formats/` leave a trace when they are executed.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, SMALL, contents
from slurm_cluster import SlurmCluster
from toy_runs import TOY_MODEL, random_pairs, write_shards

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
BESIDE = [{}, {"PYTHONPATH": "."}]
"""Environments: the working directory is where Python looks anyway, or because PYTHONPATH names it."""


class Folder:
    """A working directory with files that have the names of our top-level folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.traces = path / "imported"
        for name in ("trainer.py", "preprocess.py", "formats/__init__.py"):
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                f"with open({str(self.traces)!r}, 'a') as file:\n    file.write({name!r} + '\\n')\n"
                f"raise ImportError({name!r} + ' beside the data was imported')\n"
            )
        (path / "sft_shards").mkdir()  # an output folder may well be called so

    def run(self, *command: object, **environment: str) -> str:
        """Run an installed command here, which must succeed and import none of the files; its standard output."""
        program, *arguments = map(str, command)
        done = subprocess.run(
            [PROGRAMS / program, *arguments], cwd=self.path, capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        imported = self.traces.read_text().split() if self.traces.exists() else []
        assert not imported, done.stdout + done.stderr
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "work")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of the job in a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    command = [PROGRAMS / "sft-preprocess", "run", *INPUTS, *SMALL, "--output", "out", "--workers", "1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return contents(folder / "out")


@pytest.mark.process
@pytest.mark.parametrize("environment", BESIDE)
@pytest.mark.parametrize("workers", [1, 2])
def test_run(folder: Folder, reference: dict[str, str], workers: int, environment: dict[str, str]) -> None:
    folder.run("sft-preprocess", "run", *INPUTS, *SMALL, "--output", "out", "--workers", workers, **environment)
    assert contents(folder.path / "out") == reference


@pytest.mark.process
@pytest.mark.parametrize("environment", BESIDE)
def test_plan_task_finalize(folder: Folder, reference: dict[str, str], environment: dict[str, str]) -> None:
    folder.run("sft-preprocess", "plan", *INPUTS, *SMALL, "--output", "out", **environment)
    folder.run("sft-preprocess", "task", "--output", "out", "--workers", 2, **environment)
    folder.run("sft-preprocess", "finalize", "--output", "out", **environment)
    assert contents(folder.path / "out") == reference


@pytest.mark.process
@pytest.mark.parametrize("environment", BESIDE)
def test_ray(folder: Folder, reference: dict[str, str], environment: dict[str, str]) -> None:
    engine = ["--engine", "ray", "--workers", 2]
    folder.run("sft-preprocess", "run", *INPUTS, *SMALL, "--output", "out", *engine, **environment)
    assert contents(folder.path / "out") == reference


@pytest.mark.slurm
def test_slurm(folder: Folder, reference: dict[str, str], tmp_path: Path) -> None:
    engine = ["--engine", "slurm", "--array", 2, "--workers", 2, "--slurm-option", "cpus-per-task=1", "--follow"]
    with SlurmCluster(tmp_path / "slurm") as cluster:
        for number, environment in enumerate(BESIDE):
            output = f"out{number}"
            call = ["sft-preprocess", "run", *INPUTS, *SMALL, "--output", output, *engine]
            folder.run(*call, **{**cluster.environment, **environment})
            assert contents(folder.path / output) == reference


@pytest.mark.megatron
@pytest.mark.parametrize("environment", BESIDE)
def test_training_with_two_workers_of_torchrun(folder: Folder, environment: dict[str, str]) -> None:
    shards = write_shards(folder.path / "shards", {"train": random_pairs(12, seed=1)})
    flags = [*TOY_MODEL, "--seq-length=32", "--lr=1e-3", "--micro-batch-size=1", "--global-batch-size=4"]
    folder.run("sft-train", "--shards", shards, "--device", "cpu", "--random-weights", "--nproc", 2, "--",
               *flags, "--train-iters=1", **environment)  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("environment", BESIDE)
def test_child_processes_of_the_doctor_and_the_trial(folder: Folder, environment: dict[str, str]) -> None:
    assert "can train with --device cpu" in folder.run("sft-train", "doctor", "--device", "cpu", **environment)
    code = "from sft_shards.trainer.isolation.trial import probe; print(probe('te'))"
    assert "No module named 'transformer_engine'" in folder.run("python", "-c", code, **environment)


@pytest.mark.slurm
def test_training_on_two_nodes_of_slurm(folder: Folder, tmp_path: Path) -> None:
    shards = write_shards(folder.path / "shards", {"train": random_pairs(12, seed=1)})
    flags = [*TOY_MODEL, "--seq-length=32", "--lr=1e-3", "--micro-batch-size=1", "--global-batch-size=4"]
    where = ["--shards", shards, "--random-weights", "--device", "cpu", "--slurm", "--nodes", 2]
    call = ["sft-train", *where, "--", *flags, "--train-iters=1"]
    with SlurmCluster(tmp_path / "slurm") as cluster:
        for environment in BESIDE:
            said = folder.run(*call, **{**cluster.environment, **environment})
            number = said.split()[1].rstrip(":")
            cluster.await_end(number, seconds=300)
            log = (folder.path / f"sft-train-{number}.log").read_text()
            assert "iteration        1/" in log, log
            assert not folder.traces.exists(), log


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed from: setuptools leaves build folders behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("__init__.py", "py.typed", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("formats", "preprocess", "trainer"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def pip(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


OFFLINE = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]


@pytest.mark.process
def test_the_wheel_holds_one_top_level_name_and_every_module(source: Path, tmp_path: Path) -> None:
    pip("wheel", *OFFLINE, "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"sft_shards"}
    ours = ("__init__.py", "py.typed", "formats", "preprocess", "trainer")
    tracked = subprocess.run(["git", "ls-files", *ours], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:  # an unpacked archive has no git
        files = {path.relative_to(source) for name in ours
                 for path in (source / name, *(source / name).rglob("*")) if path.is_file()}  # fmt: skip
    else:
        files = {Path(line) for line in tracked.stdout.splitlines() if (ROOT / line).exists()}
    assert {name for name in names if name.startswith("sft_shards/")} == {f"sft_shards/{path}" for path in files}


@pytest.mark.process
@pytest.mark.parametrize("editable", [False, True])
def test_an_installation_runs_in_such_a_folder(folder: Folder, source: Path, tmp_path: Path, editable: bool) -> None:
    """Regular and editable, in an environment of its own that shares nothing but the libraries."""
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = (home / "lib").glob("python*/site-packages")
    # Libraries come from here. A .pth file adds folders and runs no .pth files found in them: the installation that
    # the tests run from stays out of sight.
    (site / "libraries.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    python = home / "bin" / "python"
    pip("--python", python, "install", "--ignore-installed", *OFFLINE, *(["--editable"] if editable else []), source)
    where = "from sft_shards.preprocess import cli; from sft_shards.trainer import cli as other; print(cli.__file__)"
    if not editable:  # an editable one is found last, after a folder of the same name in the working directory
        where += "; import sft_shards; sft_shards.open"
    for environment in BESIDE:
        found = folder.run(python, "-c", where, **environment)
        assert Path(found.strip()).is_relative_to(source if editable else site)
        assert "template  chatml" in folder.run(home / "bin" / "sft-preprocess", "formats", **environment)
