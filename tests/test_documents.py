"""Documents cannot name what is not there: links, files, modules, commands and options are looked up; samples are run.

What is in backticks or in a code block counts. A path is one that begins with a top-level folder.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from markdown import Document, alternatives

from sft_shards.preprocess.cli import cli as sft_preprocess
from sft_shards.trainer.cli import cli as sft_train

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    Document.read(path) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "tests/data/README.md")
]
FOLDERS = ("formats", "preprocess", "trainer", "tests", "benchmarks", "configs", "docker", "docs", "runs")
PLACEHOLDERS = re.compile(r"\b(MODEL|GPU|NAME|FILE)\b|…")
ELSEWHERE = ("tests/fixtures/",)
"""Folders of other projects, from which data came."""
GROUPS = ("sft_shards.records", "sft_shards.templates", "sft_shards.stages")
"""Entry point groups, which look like modules."""
PROGRAMS = {"apptainer", "docker", "git", "kubectl", "pip", "sbatch", "srun", "torchrun"}
"""Programs of others: what they are called with is not looked up."""
OTHERS = {
    "docker": "--build-arg --device --group-add --ipc --network --shm-size --ulimit --user",
    "Slurm": "--exclusive --requeue",
    "Megatron's convert.py": "--loader --saver",
}
"""Their options, where a document names one by itself."""

every = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.path.relative_to(ROOT)))


@pytest.mark.unit
@every
def test_links_lead_to_a_file_and_a_heading(document: Document) -> None:
    for target in document.links():
        name, _, anchor = target.partition("#")
        path = (document.path.parent / name).resolve() if name else document.path
        assert path.exists(), f"{target}: no such file"
        assert path.is_relative_to(ROOT), f"{target}: outside of the repository"
        assert not anchor or anchor in Document.read(path).anchors(), f"{target}: no such heading"


@pytest.mark.unit
@every
def test_paths_exist(document: Document) -> None:
    words = [*document.code(), *(word for command in document.commands() for word in command)]
    for word in (word.rstrip(",;:") for word in words):
        if (
            re.match(rf"({'|'.join(FOLDERS)})/[^\s]*$", word)
            and not PLACEHOLDERS.search(word)
            and not word.startswith(ELSEWHERE)
        ):
            for path in alternatives(word.partition("::")[0]):
                assert list(ROOT.glob(path.rstrip("/"))), f"`{word}`: {path} does not exist"


@pytest.mark.unit
@every
def test_modules_and_their_members_exist(document: Document) -> None:
    blocks = "\n".join(body for _, body in document.blocks)
    for name in {*re.findall(r"\bsft_shards(?:\.\w+)+", "\n".join([*document.code(), blocks]))} - {*GROUPS}:
        parts = name.split(".")[1:]
        path = ROOT
        while parts and (path / parts[0]).is_dir():
            path /= parts.pop(0)
        if parts and (path / f"{parts[0]}.py").is_file():
            path /= f"{parts.pop(0)}.py"
        text = (path / "__init__.py" if path.is_dir() else path).read_text("utf-8")
        assert len(parts) < 3, f"{name}: no such module"
        assert all(re.search(rf"\b{part}\b", text) for part in parts), f"{name}: not in {path}"


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def benchmark_options(path: Path) -> set[str]:
    """Every text in a benchmark's source that looks like an option."""
    files = [path] if path.is_file() else [*path.rglob("*.py")]
    texts = [node.value for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
    return {option for text in texts for option in re.findall(r"(?:^|/)(--[a-z0-9-]+)", text)}


def given(words: list[str]) -> list[str]:
    """The options in the words of a call."""
    return [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]


def call_of_group(group: click.Group, words: list[str]) -> None:
    """Check a call of one of our commands, up to `--`."""
    command: click.Command = group
    known = options(group)
    rest = words[1 : words.index("--") if "--" in words else len(words)]
    if rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        assert rest[0] in group.commands, f"{words[0]} has no command {rest[0]!r}"
        command = group.commands[rest[0]]
        known = options(command)
    unknown = set(given(rest)) - known
    assert not unknown, f"{' '.join(words)}: {command.name} has no {', '.join(unknown)}"


@pytest.mark.unit
@every
def test_commands_and_their_options_exist(document: Document) -> None:
    for words in document.commands():
        match words:
            case ["sft-preprocess", *_]:
                call_of_group(sft_preprocess, words)
            case ["sft-train", *_]:
                call_of_group(sft_train, words)
            case ["make", *targets]:
                known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
                unknown = {target for target in targets if re.fullmatch(r"[a-z-]+", target)} - {*known}
                assert not unknown, f"{' '.join(words)}: no such target"
            case ["python", "benchmarks/peak.py", *rest]:  # what follows is a call of sft-preprocess
                call_of_group(sft_preprocess, ["sft-preprocess", *rest])
            case ["python", script, *rest] if script.startswith("benchmarks/"):
                assert not set(given(rest)) - benchmark_options(ROOT / script), " ".join(words)
            case ["python", "-m", module, *rest] if module.startswith("benchmarks."):
                script = ROOT / module.replace(".", "/")
                if not (script / "__main__.py").exists():
                    script = script.with_suffix(".py")
                assert script.exists(), f"{module}: no such module"
                assert not set(given(rest)) - benchmark_options(script), " ".join(words)
            case _:
                pass


def message(node: ast.AST) -> str | None:
    """The text of an expression, with `…` for what is put into it; None if it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(message(part) or "…" for part in parts)
        case _:
            return None


@pytest.mark.unit
def test_every_message_that_is_explained_is_one_of_the_code() -> None:
    files = [path for room in ("formats", "preprocess", "trainer") for path in (ROOT / room).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    messages = {text for text in map(message, nodes) if text}
    explained = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert explained
    unknown = []
    for text in explained:
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in text.split("…")), re.DOTALL)
        if not any(map(pattern.search, messages)):
            unknown.append(text)
    assert not unknown


@pytest.mark.unit
def test_the_tree_in_the_readme_shows_every_package() -> None:
    (tree,) = [body for _, body in Document.read(ROOT / "README.md").blocks if body.startswith("formats/ ")]
    shown, room = set(), ""
    for line in tree.split("\n"):
        if found := re.match(r"(?P<indent> *)(?P<name>[\w.-]+/)  ", line):
            room = room if found["indent"] else found["name"]
            shown.add(room + found["name"] if found["indent"] else room)
    packages = {f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("[fpt]*/**/__init__.py")}
    assert {name for name in shown if (ROOT / name / "__init__.py").exists()} == packages - {
        "formats/templates/builtin/"
    }
    assert all((ROOT / name).is_dir() for name in shown)


@pytest.mark.unit
def test_the_import_directions_are_those_that_are_tested() -> None:
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text("utf-8"))
    (tested,) = (ast.literal_eval(node.value) for node in tree.body
                 if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DIRECTIONS")  # fmt: skip
    written = Document.read(ROOT / "docs" / "architecture.md").code()
    assert [room for room, directions in tested.items() if directions not in written] == []


@pytest.mark.megatron
def test_options_in_the_text_exist() -> None:
    """Every `--option` in backticks is one of ours, of a benchmark, of Megatron's parser, or listed above."""
    pytest.importorskip("megatron.training", reason="Megatron's own parser says which flags it has")
    from sft_shards.trainer.mcore.compat import parser

    known = {option for action in parser()._actions for option in action.option_strings}
    for group in (sft_preprocess, sft_train):
        known |= options(group).union(*(options(command) for command in group.commands.values()))
    known |= benchmark_options(ROOT / "benchmarks").union(*(text.split() for text in OTHERS.values()))
    for document in DOCUMENTS:
        for code in document.code():
            if code.split()[0] not in PROGRAMS:
                unknown = set(re.findall(r"(?:^|[ \[(])(--[a-z][a-z0-9-]*[a-z0-9])", code)) - known
                assert not unknown, f"{document.path}: `{code}`"
        for words in document.commands():
            if words[0] == "sft-train" and "--" in words:
                assert not set(given(words[words.index("--") + 1 :])) - known, f"{document.path}: {' '.join(words)}"


@pytest.mark.megatron
def test_the_road_in_the_readme_is_one_that_can_be_walked(tmp_path: Path) -> None:
    """Its commands run in a folder beside `tests/`, training as far as `--dry-run` goes; samples are what they print.

    After a line with `$` stands what the command prints, with `…` for any text.
    """
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    road = Document.read(ROOT / "README.md")
    samples = [call.partition("\n") for info, body in road.blocks
               for call in re.split(r"^\$ ", body.replace("\\\n", " "), flags=re.MULTILINE)[1:]]  # fmt: skip
    assert [command.split()[1] for command, _, _ in samples] == ["run", "inspect", "verify"]
    for command, _, printed in samples:
        found = run("sft_shards.preprocess.cli", *command.split()[1:], folder=tmp_path)
        pattern = ".*".join(re.escape(part) for part in printed.strip().split("…"))
        assert re.fullmatch(pattern, found.strip(), re.DOTALL), found
    trained = [words for words in road.commands() if words[0] == "sft-train" and "--random-weights" in words]
    assert trained
    for words in trained:
        run("sft_shards.trainer", "--dry-run", *words[1:], folder=tmp_path)


def run(module: str, *words: str, folder: Path) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
