"""No text that a command prints for people makes a terminal do anything, whoever wrote it."""

import ast
import json
import re
import sys
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft_shards.formats.terminal import coloured, printable, printable_text, quoted, status

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b]52;c;QQ==\x07\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2066\rforged\x08\x7f"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def test_every_control_and_bidirectional_character_is_shown():
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for number in range(0x110000):
        character = chr(number)
        obeyed = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        if obeyed or unicodedata.bidirectional(character) in bidirectional or character in "\u061c\u200e\u200f":
            assert printable(character).isascii()
            assert len(printable(character)) > 1
            assert printable_text(character) == (character if character in "\n\t" else printable(character))
        else:
            assert printable(character) == printable_text(character) == character


def test_lines_of_a_text_cannot_be_taken_for_ours():
    assert quoted("a\nwrote out") == "│ a\n│ wrote out"
    assert printable("a\nwrote out") == r"a\nwrote out"


@pytest.mark.parametrize(("terminal", "no_color"), [(True, None), (True, "1"), (False, None)])
def test_terminals_are_told_more_and_in_colour(monkeypatch, capsys, terminal, no_color):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    status("loading \x1b[2J")
    assert capsys.readouterr().err == ("loading \\x1b[2J\n" if terminal else "")
    assert coloured(sys.stderr) == (terminal and not no_color)


def test_nothing_is_printed_past_it():
    """What is printed otherwise is JSON, a script, or a text that went through `printable` piece by piece."""
    known = {
        "formats/terminal.py",
        "preprocess/cli.py",  # JSON, the script of --dry-run, the announcement
        "preprocess/directories/cli.py",  # JSON, sequences, tables
        "preprocess/trials/cli.py",  # JSON, records, tables
        "preprocess/engines/kubernetes.py",
        "preprocess/progress.py",  # numbers
        "trainer/chat/cli.py",
        "trainer/cli.py",
        "trainer/doctor/cli.py",
        "trainer/isolation/trial.py",  # what another process of ours reads
        "trainer/launch/slurm.py",
    }
    found = set()
    for room in ("formats", "preprocess", "trainer"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "click.secho"):
                    found.add(str(path.relative_to(ROOT)))
    assert found == known, "print lines for people by formats.terminal.say"


@pytest.fixture
def directory(preprocess, bpe_folder, tmp_path):
    """A directory whose records, sources and name are hostile."""
    path = tmp_path / f"a{HOSTILE}\nwrote nothing.jsonl"
    turns = [{"role": "user", "content": f"Hi {HOSTILE} ⟦x⟧\nwrote nothing"}, {"role": "assistant", "content": HOSTILE}]
    records = [{"messages": turns}, {"messages": [{"role": HOSTILE, "content": "x"}]}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    output = tmp_path / f"out{HOSTILE}\nwrote"
    status, out, err = preprocess("run", path, "--output", output, "--tokenizer", bpe_folder)
    assert status == 0
    return output, out, err


def test_commands_print_nothing_that_is_obeyed(directory, preprocess, tmp_path):
    output, *run = directory
    printed = [*run]
    looks = [[name, output] for name in ("inspect", "list", "rejects", "stats")]
    looks += [["inspect", output, "--tokens"], ["inspect", output, "--pack", 0, "--seq-length", 64]]
    for command in (*looks, ["diff", output, output], ["verify", output, "--quick"], ["check", tmp_path]):
        printed += preprocess(*command)[1:]
    printed += preprocess("inspect", output, "--split", HOSTILE)[1:]
    printed += preprocess("run", tmp_path / HOSTILE, "--output", tmp_path / "o", "--tokenizer", HOSTILE)[1:]
    for text in printed:
        assert not OBEYED.search(text), text
    assert sum(map(len, printed)) > 1000


def test_no_line_is_forged(directory, preprocess):
    output, out, err = directory
    lines = out.splitlines() + err.splitlines()
    assert [line for line in lines if line.startswith("wrote")] == [lines[lines.index(out.splitlines()[-1])]]
    words = ["source", "left out:", "record", "remedy:", "train:", "WARNING:", "took", "wrote"]
    ours = [line.strip() for line in out.splitlines()]
    assert [ours[0], *ours[2:]] == [line for word in words for line in ours if line.startswith(word)]
    assert len(ours) == len(words) + 1
    assert len(preprocess("list", output)[1].splitlines()) == 2
    assert len(preprocess("diff", output, output)[1].splitlines()) == 1
    marked = preprocess("inspect", output)[1]
    assert marked.count("⟦") == marked.count("⟧") == 1


def test_colours_are_ours_alone(directory, preprocess):
    output, *_ = directory
    _, out, _ = preprocess("inspect", output, "--color", "always")
    assert set(re.findall("\x1b[^m]*m?", out)) <= {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m"}


def test_json_stays_json(directory, preprocess):
    output, *_ = directory
    value = json.loads(preprocess("inspect", output, "--json")[1])
    assert HOSTILE in "".join(part["text"] for part in value["text"])
    assert json.loads(preprocess("list", output, "--json")[1])[0]["directory"] == str(output)


def test_findings_of_a_hostile_table(preprocess, bpe_folder, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array(["x"])] * 2, names=[HOSTILE, HOSTILE]), path)
    _, out, err = preprocess("run", path, "--output", tmp_path / "o", "--tokenizer", bpe_folder)
    assert not OBEYED.search(out + err)


def test_sft_train_prints_nothing_that_is_obeyed(capsys):
    """An error, a warning, a worker's line, and a report of the doctor."""
    from sft_shards.trainer import cli, worker
    from sft_shards.trainer.doctor.report import Finding, as_text
    from sft_shards.trainer.launch import launcher

    text = f"{HOSTILE}\nforged"
    assert cli._fail(text, 1) == 1
    launcher.warn(text)
    worker._show([text])
    finding = Finding(name=text, status="warning", found=text, remedy=text)
    report = as_text([finding], device="cpu", colour=False)
    out, err = capsys.readouterr()
    assert not OBEYED.search(out + err + report)
    assert len(err.splitlines()) == 3
    assert len(report.splitlines()) == 3
