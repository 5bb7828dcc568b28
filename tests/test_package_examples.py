"""A package's docstring shows the package at work: its example is run as it stands.

An example is an indented block of Python with an import. It runs in a folder like the repository's root after the
README's first step: `tests/` with its small data is there, and `shards/` is a finished shard directory.
"""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, TOKENIZER

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path for room in ("formats", "preprocess", "trainer") for path in (ROOT / room).rglob("__init__.py"))
WITHOUT_EXAMPLE = {"formats/templates/builtin"}  # Jinja files


def examples(docstring: str) -> list[str]:
    """The indented blocks of a docstring that are Python and import something."""
    blocks = re.findall(r"(?:^ {4,}.*\n?(?:\n(?= {4}))*)+", docstring, re.MULTILINE)
    found = []
    for block in map(textwrap.dedent, blocks):
        try:
            tree = ast.parse(block)
        except SyntaxError:
            continue  # a flow, a tree of files, a command
        if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(tree)):
            found.append(block)
    return found


def name(package: Path) -> str:
    return str(package.parent.relative_to(ROOT))


SHOWN = [path for path in PACKAGES if name(path) not in WITHOUT_EXAMPLE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for beside in ("tests", "configs"):
        (folder / beside).symlink_to(ROOT / beside)
    command = [
        sys.executable,
        "-m",
        "sft_shards.preprocess.cli",
        "run",
        *(f"tests/data/{path.name}" for path in INPUTS),
    ]
    options = ["--output", "shards", "--tokenizer", f"tests/data/{TOKENIZER.name}", "--valid-fraction", "0.1"]
    subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.process
@pytest.mark.parametrize("package", SHOWN, ids=name)
def test_the_example_runs(package: Path, folder: Path, tmp_path: Path) -> None:
    found = examples(ast.get_docstring(ast.parse(package.read_text("utf-8"))) or "")
    assert found, f"{package}: its docstring shows no example"
    for number, example in enumerate(found):
        script = tmp_path / f"example{number}.py"
        script.write_text(example, "utf-8")
        done = subprocess.run(
            [sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{example}\n{done.stderr}"
        assert done.stdout or "print" not in example, example


@pytest.mark.unit
def test_packages_without_an_example_are_listed_no_longer_than_needed() -> None:
    docstrings = {name(path): ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in PACKAGES}
    assert set(docstrings) >= WITHOUT_EXAMPLE
    assert [package for package in sorted(WITHOUT_EXAMPLE) if examples(docstrings[package])] == []


def with_doctests() -> list[str]:
    """Modules whose docstrings show calls with their results (`>>>`)."""
    files = (path for room in ("formats", "preprocess", "trainer") for path in sorted((ROOT / room).rglob("*.py")))
    shown = (path.relative_to(ROOT) for path in files if ">>>" in path.read_text("utf-8"))
    return ["sft_shards." + ".".join(path.with_suffix("").parts) for path in shown]


@pytest.mark.unit
@pytest.mark.parametrize("module", with_doctests())
def test_calls_in_docstrings_give_what_they_show(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried, f"{module} shows nothing that doctest finds"
    assert not failed
