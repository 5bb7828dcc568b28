"""docs/commands.md is what the code declares, and the tutorial can be walked as it stands."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown import Document
from preprocess_jobs import INPUTS, SMALL

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PLACEHOLDER = re.compile(r"[A-Z]{2,}|…|\*|<|^T$")
"""A word that stands for another one, as FILE does."""
READS_ONLY = {"check", "formats", "preview", "run"}
OF_DIRECTORIES = {"inspect", "list", "rejects", "report", "stats", "verify"}


def generator():
    spec = importlib.util.spec_from_file_location("commands", DOCS / "hooks" / "commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.unit
def test_the_reference_is_what_the_code_declares() -> None:
    assert (DOCS / "commands.md").read_text("utf-8") == generator().reference(), "run: make reference"


@pytest.mark.unit
def test_every_document_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    assert [path.name for path in DOCS.glob("*.md") if path.name != "README.md" and f"({path.name}" not in index] == []


def on_shipped_data(document: Document) -> list[list[str]]:
    """The calls of sft-preprocess that read the data that ships, and in which no word stands for another one."""
    return [
        words
        for words in document.commands()
        if words[0] == "sft-preprocess"
        and READS_ONLY.intersection(words[1:2])
        and any(word.startswith("tests/data/") for word in words)
        and not any(PLACEHOLDER.search(word) for word in words)
    ]


CALLS = [
    (path.name, words)
    for path in sorted(DOCS.glob("*.md"))
    if path.name != "tutorial.md"
    for words in on_shipped_data(Document.read(path))
]


@pytest.mark.process
@pytest.mark.parametrize(("name", "words"), CALLS, ids=[f"{name}-{at}" for at, (name, _) in enumerate(CALLS)])
def test_what_a_document_does_with_the_data_that_ships_can_be_done(name: str, words: list[str], tmp_path: Path) -> None:
    for folder in ("tests", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    call = [sys.executable, "-m", "sft_shards.preprocess.cli", *words[1:]]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_what_a_document_does_with_a_directory_can_be_done(preprocess, tmp_path, monkeypatch) -> None:
    """Calls on `shards`: here made of the data that ships, with a conversation too long and a validation split."""
    monkeypatch.chdir(tmp_path)
    assert preprocess("run", *INPUTS, *SMALL, "--workers", 1, "--output", "shards")[0] == 0
    calls = [
        words
        for path in sorted(DOCS.glob("*.md"))
        for words in Document.read(path).commands()
        if words[0] == "sft-preprocess" and OF_DIRECTORIES.intersection(words[1:2]) and "shards" in words
        and not any(PLACEHOLDER.fullmatch(word) for word in words)
    ]  # fmt: skip
    assert {words[1] for words in calls} >= {"inspect", "rejects", "report", "stats"}
    failed = {" ".join(words): err for words in calls for status, _, err in [preprocess(*words[1:])] if status}
    assert failed == {}


@pytest.mark.process
def test_the_example_in_yaml_is_a_job(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (text,) = [body for info, body in Document.read(DOCS / "options.md").blocks if info == "yaml"]
    (tmp_path / "job.yaml").write_text(text, "utf-8")
    call = [sys.executable, "-m", "sft_shards.preprocess.cli", "run", "--config", "job.yaml", "--output", "shards"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.megatron
@pytest.mark.timeout(1200)
def test_the_tutorial_can_be_walked(tmp_path: Path) -> None:
    pytest.importorskip("megatron.training", reason="the tutorial trains")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    steps = [body for info, body in Document.read(DOCS / "tutorial.md").blocks if info == "sh"]
    assert len(steps) == 5
    bin_ = Path(sys.executable).parent
    script = "\n".join(["set -euo pipefail", f"PATH={bin_}:$PATH", *steps])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (tmp_path / "tutorial" / "tuned" / "config.json").is_file()
    assert "⟦" in done.stdout, "inspect shows what carries loss"
