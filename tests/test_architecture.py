"""The rules of the house that no single module can keep by itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"formats": {"formats"}, "preprocess": {"formats", "preprocess"}, "trainer": {"formats", "trainer"}}
# The trainer needs no raw record and no template, whatever layer they are in.
NEVER = {
    "trainer": {"formats.records", "formats.templates", "jinja2"},
    "formats": {"torch", "megatron"},
}
NEVER["preprocess"] = {"torch", "megatron"}
FILES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in MAY_IMPORT or top in MAY_IMPORT[room], f"{path} imports {name}"
        forbidden = {one for one in NEVER[room] if name == one or name.startswith(f"{one}.")}
        assert not forbidden, f"{path} imports {name}"


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_preprocess_needs_no_torch_and_no_megatron() -> None:
    everything = "; ".join(
        f"import {'.'.join(path.relative_to(ROOT).with_suffix('').parts)}"
        for path in (ROOT / "preprocess").glob("[a-z]*.py")
    )
    loaded = modules_after(everything)
    assert {"preprocess.cli", "formats.shards"} <= loaded
    assert not {"torch", "megatron"} & loaded


@pytest.mark.parametrize("command", ["preprocess.cli", "trainer.cli"])
def test_commands_start_without_heavy_imports(command: str) -> None:
    assert not {"torch", "megatron", "transformers", "datasets", "ray"} & modules_after(f"import {command}")


@pytest.mark.parametrize("package", ["formats.records", "formats.templates", "formats.shards"])
def test_what_a_package_exports_is_there_and_sorted(package: str) -> None:
    module = __import__(package, fromlist=["__all__"])
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def test_every_module_says_why_it_exists() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path} has no docstring"


RUN_OPTIONS = (
    "--output --tokenizer --format --template --train-on --max-length --overlong --valid-fraction --test-fraction "
    "--field --workers --shard-tokens --max-rejects --engine --config"
)


def test_the_options_that_others_rely_on() -> None:
    from preprocess.cli import cli

    options = {name for parameter in cli.commands["run"].params for name in parameter.opts}
    assert set(RUN_OPTIONS.split()) <= options
    assert {"run", "inspect", "verify", "formats"} <= set(cli.commands)
