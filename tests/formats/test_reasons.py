"""Reasons and notes: one table, which our code keeps to and docs/formats.md repeats."""

import ast
import re
from pathlib import Path

import pytest

from sft_shards.formats.reasons import NOTES, REASONS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.unit


def code():
    for room in ("formats", "preprocess"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def raised():
    """(file, first argument) of every `RecordError(...)`."""
    for path, tree in code():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RecordError":
                yield path, node.args[0]


def test_our_code_gives_reasons_of_the_table_and_no_other():
    found = {"duplicate"}
    for path, argument in raised():
        assert isinstance(argument, ast.Constant), f"{path}:{argument.lineno}: spell the reason out"
        assert argument.value in REASONS, f"{path}:{argument.lineno}: {argument.value} is not in REASONS"
        found.add(argument.value)
    assert found == set(REASONS)


def test_deduplication_gives_its_reason():
    from sft_shards.preprocess.tasks.dedup import REASON

    assert REASON == "duplicate"


def test_every_note_is_counted_somewhere():
    constants = {
        node.value
        for path, tree in code()
        if path.name != "reasons.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(NOTES) <= constants


def test_the_document_repeats_both_tables():
    text = (ROOT / "docs" / "formats.md").read_text("utf-8")
    rows = [f"| `{name}` | {reason.meaning} | {reason.remedy} |" for name, reason in REASONS.items()]
    assert re.findall(r"^\| `\w+` \| [^|]+ \| [^|]+ \|$", _section(text, "| reason |"), re.M) == rows
    rows = [f"| `{name}` | {meaning} |" for name, meaning in NOTES.items()]
    assert re.findall(r"^\| `\w+` \| [^|]+ \|$", _section(text, "| note |"), re.M) == rows


def _section(text, head):
    return text[text.index(head) :].partition("\n\n")[0]
