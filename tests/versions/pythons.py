"""The Pythons that `sft-preprocess` promises: installed without torch into each that is here, it makes a directory.

    make pythons

The wheel is built once. For each interpreter on PATH or in ~/.pyenv/versions it goes, with what it requires, into an
environment in pytest's cache folder (made the first time, from the package index); `run` and `verify` then work on the
data that ships, in a folder outside of the repository. An interpreter that is not here is a skipped test that says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from built_wheel import build_wheel

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def run(*command: object, cwd: Path) -> str:
    """Run a program that must succeed, without what this environment has on its path; its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interpreter(version: str) -> str | None:
    """A program that is that Python: on PATH, or in pyenv's folder; a shim of pyenv may have nothing behind it."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for program in [shutil.which(f"python{version}"), *map(str, reversed(pyenv))]:
        if program is not None:
            code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run([program, "-c", code], capture_output=True, text=True, check=False)
            if done.stdout.strip() == version:
                return program
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("source"))


@pytest.mark.timeout(1800)  # downloads
@pytest.mark.parametrize("version", VERSIONS)
def test_python(version: str, wheel: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    program = interpreter(version)
    if program is None:
        pytest.skip(f"no Python {version} on PATH or in ~/.pyenv/versions")
    environment = pytestconfig.cache.mkdir("pythons") / version  # type: ignore[union-attr]
    bin_ = environment / "bin"
    if not (environment / "done").exists():
        run(program, "-m", "venv", "--clear", environment, cwd=tmp_path)
        run(bin_ / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
        (environment / "done").touch()
    # The rest stays, the package is the one just built; what it requires may have changed.
    install = ["install", "--quiet", "--disable-pip-version-check"]
    run(bin_ / "python", "-m", "pip", *install, "--force-reinstall", "--no-deps", wheel, cwd=tmp_path)
    run(bin_ / "python", "-m", "pip", *install, wheel, cwd=tmp_path)
    names = run(bin_ / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    assert "torch==" not in names
    call = ["run", DATA / "alpaca_en.json", DATA / "openai_tr.jsonl", "--tokenizer", DATA / "tokenizer"]
    run(bin_ / "sft-preprocess", *call, "--output", "out", "--workers", 2, cwd=tmp_path)
    run(bin_ / "sft-preprocess", "verify", "out", cwd=tmp_path)
