"""The package as it is installed: a wheel, built from a copy, because setuptools leaves folders behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build_wheel(source: Path) -> Path:
    """Build the wheel in an empty folder, and return its path. The setuptools of this environment builds it."""
    for name in ("__init__.py", "py.typed", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("formats", "preprocess", "trainer"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", "wheels"]
    call = [sys.executable, "-m", "pip", "wheel", *options, "."]
    done = subprocess.run(call, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (source / "wheels").glob("*.whl")
    return made
