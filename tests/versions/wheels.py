"""The wheels of Megatron that are supported besides the one that is installed; CI runs this, `make test` does not.

    make versions

A wheel is unpacked into pytest's cache folder the first time (34 MB for all, from the package index) and put on
PYTHONPATH, like a checkout; torch and everything else are those of this environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.megatron

ROAD = Path(__file__).parents[1] / "support" / "megatron_road.py"


@pytest.mark.parametrize("version", ["0.17.1", "0.18.2"])
def test_wheel(version: str, pytestconfig: pytest.Config) -> None:
    folder = pytestconfig.cache.mkdir("megatron") / version  # type: ignore[union-attr]
    if not (folder / "done").exists():
        wanted = [f"megatron-core=={version}", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / "done").touch()
    command = [sys.executable, "-W", "ignore", str(ROAD)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"ok {version}")
    assert str(folder) in done.stdout, "it was the one in this folder"
