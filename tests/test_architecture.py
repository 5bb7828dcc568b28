"""The rules of the house that no single module can keep by itself."""

import ast
import configparser
import graphlib
import importlib
import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("formats", "preprocess", "trainer")
MAY_IMPORT = {"formats": {"formats"}, "preprocess": {"formats", "preprocess"}, "trainer": {"formats", "trainer"}}
# The trainer needs no raw record and no template, whatever layer they are in. `sft-train chat`, which trains nothing, asks
# a model by the template of the folder that somebody named, within the sandbox's bounds.
SANDBOX = "sft_shards.formats.templates.sandbox"
CHAT = ROOT / "trainer" / "chat" / "generation.py"
MAY_STILL = {CHAT: {SANDBOX, f"{SANDBOX}.render_prompt", f"{SANDBOX}.variables_taken"}}
NEVER = {
    "trainer": {"sft_shards.formats.records", "sft_shards.formats.templates", "jinja2"},
    "formats": {"torch", "megatron"},
    "preprocess": {"torch", "megatron"},
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, `from package import module` spelled out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or "", *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def needs(path: Path, modules: Collection[str]) -> set[str]:
    """The modules, of those given, that a file needs; `from package import module` needs the module."""
    found = imports(path)
    packages = {name.rpartition(".")[0] for name in found if name in modules}
    named = {name.rpartition(".")[0] for name in found if name not in modules}
    return {name for name in found if name in modules and (name not in packages or name in named)}


def ours(name: str) -> str | None:
    """The part of an import below `sft_shards.`; None for anything else."""
    return name.removeprefix("sft_shards.") if name.startswith("sft_shards.") else None


def module_name(path: Path) -> str:
    return "sft_shards." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.unit
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        assert name.split(".")[0] not in ROOMS, f"{path} imports {name}, not by its name below sft_shards"
        below = ours(name)
        assert below is None or below.split(".")[0] in MAY_IMPORT[room], f"{path} imports {name}"
        forbidden = {one for one in NEVER[room] if name == one or name.startswith(f"{one}.")}
        assert not forbidden or name in MAY_STILL.get(path, ()), f"{path} imports {name}"


# Modules and subfolders of a room, from top to bottom: each may import what stands to the right of its `>`.
DIRECTIONS = {
    "preprocess": (
        "cli > trials > preview, job > directories, engines > tasks > pipeline > sources, tokenizer"
        " > options > config, inputs, runtime, progress, versions > source_options"
    ),
    "trainer": (
        "cli > options > launch, worker > resolve > summary, stage_registry > stage, compatibility, doctor, chat"
        " > model, mcore > yaml_config > data, isolation, parallel_layout, job"
    ),
}
TOGETHER = {"trainer": {"model", "mcore"}}
"""Neighbours that import each other: Megatron builds the model, and its flags are the model shape."""


def unit(below: str) -> str:
    """The module or subfolder of a room that a name such as `trainer.data.cache` belongs to."""
    return below.split(".")[1] if "." in below else "cli"  # a room's own docstring, and its __main__


@pytest.mark.unit
@pytest.mark.parametrize("room", DIRECTIONS)
def test_imports_run_downwards(room: str) -> None:
    layers = [layer.split(", ") for layer in DIRECTIONS[room].split(" > ")]
    floor = {name: -number for number, layer in enumerate(layers) for name in layer}
    seen = set()
    for path in (path for path in FILES if path.relative_to(ROOT).parts[0] == room):
        importer = unit(module_name(path).removeprefix("sft_shards.").removesuffix(".__main__"))
        seen.add(importer)
        for name in imports(path):
            below = ours(name)
            if below is None or not below.startswith(f"{room}."):
                continue
            imported = unit(below)
            assert imported in floor, f"{path} imports {name}, which DIRECTIONS does not name"
            together = {importer, imported} <= TOGETHER.get(room, set())
            assert importer == imported or together or floor[importer] > floor[imported], f"{path} imports {name}"
    assert seen == set(floor)


@pytest.mark.unit
@pytest.mark.parametrize("room", DIRECTIONS)
def test_no_circle_of_modules(room: str) -> None:
    """Imports within functions count: a circle that is put off is a circle."""
    names = {module_name(path): path for path in FILES if path.relative_to(ROOT).parts[0] == room}
    graph = {module: needs(path, names.keys()) - {module} for module, path in names.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


PLUGIN_SURFACE = {
    "sft_shards.formats.conversation": {"Conversation", "Turn", "ROLES"},
    "sft_shards.formats.errors": {"DataError", "RecordError", "UsageError"},
    "sft_shards.formats.records": {"FieldMap", "RecordFormat"},
    "sft_shards.trainer.stage": {"Setup", "Stage"},
}
"""What packages of others may import, and names that they rely on."""


@pytest.mark.unit
@pytest.mark.parametrize("module", PLUGIN_SURFACE)
def test_the_plugin_surface_is_stated(module: str) -> None:
    found = importlib.import_module(module)
    assert set(found.__all__) >= PLUGIN_SURFACE[module]
    assert all(hasattr(found, name) for name in found.__all__)
    assert "plugin surface" in found.__doc__.lower(), "its docstring says that other packages import it"


@pytest.mark.unit
def test_every_folder_with_modules_is_a_package_that_is_installed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = set(config["options"]["packages"].split())
    assert packages == {"sft_shards"} | {
        "sft_shards." + ".".join(path.relative_to(ROOT).parent.parts) for path in FILES
    }


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(' '.join(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.process
def test_preprocess_needs_no_torch_and_no_megatron() -> None:
    names = [module_name(path) for path in FILES if path.relative_to(ROOT).parts[0] == "preprocess"]
    loaded = modules_after("; ".join(f"import {name}" for name in names))
    assert set(names) <= loaded
    assert not {"torch", "megatron"} & loaded


@pytest.mark.process
@pytest.mark.parametrize("command", ["sft_shards.preprocess.cli", "sft_shards.trainer.cli"])
def test_commands_start_without_heavy_imports(command: str) -> None:
    assert not {"torch", "megatron", "transformers", "datasets", "ray"} & modules_after(f"import {command}")


@pytest.mark.process
def test_a_job_imports_neither_pandas_nor_datasets(tmp_path: Path) -> None:
    """Both are installed here, and pyarrow imports pandas behind one's back: `pa.array`, `to_numpy`, `fill_null`."""
    data = ROOT / "tests" / "data"
    rows = [json.loads(line) for line in (data / "openai_tr.jsonl").read_text("utf-8").splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text('instruction,output\nName a colour,"Red, say"\n', "utf-8")
    function = {"name": "f", "arguments": {"a": 1, "b": None}}
    parts = [{"type": "thinking", "thinking": "t", "text": None}, {"type": "text", "thinking": None, "text": "a"}]
    calling = [
        {"role": "user", "content": [{"type": "text", "thinking": None, "text": "q"}], "tool_calls": None},
        {"role": "assistant", "content": parts, "tool_calls": [{"type": "function", "function": function}]},
    ]
    offers = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
    rich = [{"messages": calling, "tools": offers}, {"messages": calling, "tools": []}]
    pq.write_table(pa.Table.from_pylist(rich), tmp_path / "rich.parquet")
    (tmp_path / "rich.jsonl").write_text("\n".join(map(json.dumps, rich)), "utf-8")
    output, tokenizer = tmp_path / "out", str(data / "tokenizer")
    inputs = [
        str(tmp_path / "rich.parquet"),
        str(tmp_path / "rich.jsonl"),
        *map(str, sorted(data.glob("*.jsonl"))),
        str(data / "alpaca_en.json"),
        str(tmp_path / "rows.parquet"),
        str(tmp_path / "rows.csv"),
    ]
    job = ["run", *inputs, "--tokenizer", tokenizer, "--output", str(output), "--valid-fraction", "0.1", "--dedup"]
    calls = [[*job, "--workers", "1"], ["verify", str(output)], ["inspect", str(output)]]
    statement = "from sft_shards.preprocess.cli import cli\n" + "\n".join(
        f"cli({arguments!r}, standalone_mode=False)" for arguments in calls
    )
    loaded = modules_after(
        f"import io, sys; own, sys.stdout = sys.stdout, io.StringIO()\n{statement}\nsys.stdout = own"
    )
    assert "sft_shards.preprocess.tasks.finalize" in loaded
    assert not {"pandas", "datasets"} & loaded


@pytest.mark.unit
@pytest.mark.parametrize(
    "package", ["sft_shards.formats.records", "sft_shards.formats.templates", "sft_shards.formats.shards"]
)
def test_what_a_package_exports_is_there_and_sorted(package: str) -> None:
    module = __import__(package, fromlist=["__all__"])
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.unit
def test_every_module_says_why_it_exists() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path} has no docstring"


RUN_OPTIONS = (
    "--output --tokenizer --format --template --train-on --max-length --overlong --valid-fraction --test-fraction "
    "--field --workers --shard-tokens --max-rejects --engine --config"
)


@pytest.mark.unit
def test_the_options_that_others_rely_on() -> None:
    from sft_shards.preprocess.cli import cli

    options = {name for parameter in cli.commands["run"].params for name in parameter.opts}
    assert set(RUN_OPTIONS.split()) <= options
    assert {"run", "inspect", "verify", "formats"} <= set(cli.commands)
