"""The end of a job: what was lost is loud, and a job that lost most of a source fails."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from preprocess_jobs import error_line

from sft_shards.formats.shards import Manifest
from sft_shards.preprocess.directories.summary import lines, summarize
from sft_shards.preprocess.directories.tables import columns_of

pytestmark = pytest.mark.unit

GOOD = {"instruction": "Name a colour", "output": "Red"}
BAD = {"instruction": "Name a colour", "output": ""}


@pytest.fixture
def job(preprocess, tmp_path, bpe_folder):
    """Runs a job over files with so many good and bad records each."""

    def run(*counts: tuple[int, int], options=()):
        paths = []
        for at, (good, bad) in enumerate(counts):
            path = tmp_path / f"{at}.jsonl"
            path.write_text("".join(json.dumps(one) + "\n" for one in [*[GOOD] * good, *[BAD] * bad]), "utf-8")
            paths.append(path)
        return preprocess("run", *paths, "--output", tmp_path / "out", "--tokenizer", bpe_folder, *options)

    return run


def test_each_source_with_what_it_lost_and_what_helps(job, tmp_path):
    status, out, _ = job((97, 3), (10, 0))
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["source", "format", "read", "kept", "left", "out", "share"]
    assert rows[1] == [f"{tmp_path}/0.jsonl", "alpaca", "100", "97", "3", "3.0%"]
    assert rows[2] == [f"{tmp_path}/1.jsonl", "alpaca", "10", "10", "0", "0.0%"]
    assert "left out: 3 empty_assistant_turn: an assistant's turn has neither text nor tool call\n" in out
    assert f"  record 97 of {tmp_path}/0.jsonl: " in out
    assert "  remedy: fill it\n" in out
    assert "WARNING" not in out
    assert "records/s" in out


def test_a_reason_is_explained_once_with_the_source_that_lost_most(job, tmp_path):
    status, out, _ = job((97, 2), (97, 3), (97, 1))
    assert (status, out.count("left out: ")) == (0, 1)
    assert "left out: 6 empty_assistant_turn of 3 sources: " in out
    assert f"  record 97 of {tmp_path}/1.jsonl: " in out


def test_more_than_a_tenth_is_a_warning(job, tmp_path):
    status, out, _ = job((89, 11), (1000, 0))
    assert status == 0
    assert f"WARNING: 11.0% of {tmp_path}/0.jsonl was left out (11 of 100 records)" in out
    assert job((90, 10), options=["--overwrite"])[1].count("WARNING") == 0


def test_duplicates_are_no_warning(job):
    status, out, _ = job((500, 0), options=["--dedup"])
    assert (status, "499 duplicate" in out, "WARNING" in out) == (0, True, False)


def test_losing_most_of_a_source_fails(job, tmp_path):
    status, _, err = job((100, 101), (1000, 0))
    assert status == 1
    message = error_line(err)
    assert (
        f"101 of 201 records of {tmp_path}/0.jsonl were left out (empty_assistant_turn 101), more than half" in message
    )
    assert f"record 100 of {tmp_path}/0.jsonl: " in message
    assert "--max-rejects 100%" in message
    status, out, _ = job((100, 101), (1000, 0), options=["--max-rejects", "100%"])
    assert (status, "WARNING: 50.2%" in out) == (0, True)


@pytest.mark.parametrize("counts", [(99, 100), (101, 101)])
def test_few_records_and_half_are_let_pass(job, counts):
    assert job(counts)[0] == 0


def test_what_options_leave_out_does_not_fail(job):
    assert job((500, 0), options=["--dedup"])[0] == 0
    assert job((500, 0), options=["--overwrite", "--max-length", "2"])[0] == 1, "nothing is left"


def test_json_has_all_of_it(job, tmp_path):
    status, out, _ = job((80, 20), options=["--json"])
    found = json.loads(out)
    assert (status, found["output"], found["template"]) == (0, str(tmp_path / "out"), "tokenizer")
    assert found["counts"]["read"] == 100
    (source,) = found["sources"]
    assert {name: source[name] for name in ("path", "format", "read", "kept")} == {
        "path": f"{tmp_path}/0.jsonl",
        "format": "alpaca",
        "read": 100,
        "kept": 80,
    }
    (loss,) = source["left_out"]
    assert (loss["reason"], loss["records"], loss["first"], loss["remedy"]) == (
        "empty_assistant_turn",
        20,
        80,
        "fill it",
    )
    assert found["warnings"][0].startswith("20.0% of ")
    assert found["seconds"] > 0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_of_a_terminal_fit_but_for_words_that_cannot_be_cut(job, tmp_path, width):
    assert job((80, 20), (1, 0))[0] == 0
    output = tmp_path / "out"
    for line in lines(summarize(output, Manifest.read(output)), colour=False, width=width):
        assert columns_of(line) < width or str(tmp_path) in line


def test_colour_marks_what_is_loud_and_words_say_it_too(job, tmp_path):
    assert job((80, 20), (5, 0))[0] == 0
    output = tmp_path / "out"
    summary = summarize(output, Manifest.read(output))
    plain, styled = (list(lines(summary, colour=colour)) for colour in (False, True))
    assert [click.unstyle(line) for line in styled] == plain
    assert [click.unstyle(line).split()[0] for line in styled if "\x1b[31m" in line] == [
        f"{tmp_path}/0.jsonl",
        "WARNING:",
    ]


def test_many_sources_are_summed_up(job, tmp_path: Path):
    status, out, _ = job(*[(2, 0)] * 24, (1, 1))
    assert status == 0
    assert f"{tmp_path}/24.jsonl" in out
    assert "and 5 more sources: 10 read, 0 left out\n" in out
