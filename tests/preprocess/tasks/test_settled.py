"""A first failure blocks nothing: what came to nothing gives way to another call, and what holds work does not."""

from __future__ import annotations

import json

import pytest
from preprocess_jobs import error_line

pytestmark = pytest.mark.unit

GOOD = {"instruction": "Name a colour", "output": "Red"}
NAMED = {"instruction": "Name a colour", "what_it_said": "Red"}


@pytest.fixture
def call(preprocess, tmp_path, bpe_folder):
    def run(command, records, *options):
        path = tmp_path / "a.jsonl"
        text = "".join(json.dumps(one) + "\n" for one in records)
        if not path.exists() or path.read_text("utf-8") != text:  # a file that is written again is another one
            path.write_text(text, "utf-8")
        return preprocess(command, path, "--output", tmp_path / "out", "--tokenizer", bpe_folder, *options)

    return run


def test_a_job_that_lost_everything_gives_way_to_the_corrected_call(call, tmp_path):
    status, _, err = call("run", [NAMED] * 3, "--format", "alpaca")
    assert status == 1
    message = error_line(err)
    assert "all 3 records were left out (missing_field 3); record 0 of " in message
    assert message.count("--field") == 1, "the detail names the option, and the remedy does not repeat it"
    assert "--field output=COLUMN" in message
    assert (tmp_path / "out" / "rejects.jsonl").read_text("utf-8").count("\n") == 3
    status, _, err = call("run", [NAMED] * 3, "--format", "alpaca", "--field", "output=what_it_said")
    assert (status, "starting over" in err) == (0, True)


def test_a_job_that_lost_too_much_gives_way_or_goes_on(call, tmp_path):
    records = [GOOD] * 100 + [NAMED] * 150
    assert call("run", records, "--format", "alpaca")[0] == 1
    made = (tmp_path / "out" / ".work" / "tasks" / "00000").stat().st_ino
    assert call("run", records, "--format", "alpaca")[0] == 1
    assert (tmp_path / "out" / ".work" / "tasks" / "00000").stat().st_ino == made
    assert call("run", records, "--format", "alpaca", "--max-rejects", "100%")[0] == 0
    assert call("run", records, "--format", "alpaca", "--train-on", "last", "--overwrite")[0] == 1
    status, _, err = call(
        "run", records, "--format", "alpaca", "--train-on", "last-run", "--overwrite", "--max-rejects=99%"
    )
    assert status == 0, err


def test_a_run_that_finished_no_task_gives_way(call, monkeypatch):
    def stop(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sft_shards.preprocess.tasks.task.run_task", stop)
        assert call("run", [GOOD])[0] == 130
    assert call("run", [GOOD], "--train-on", "last")[0] == 0


def test_a_plan_whose_tasks_others_may_run_does_not_give_way(call, preprocess, tmp_path):
    assert call("plan", [GOOD])[0] == 0
    status, _, err = call("run", [GOOD], "--train-on", "last")
    assert (status, "another plan" in error_line(err)) == (2, True)


def test_a_run_with_finished_tasks_does_not_give_way(call, tmp_path, monkeypatch):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sft_shards.preprocess.job.finalize", stop)
        assert call("run", [GOOD])[0] == 130
    status, _, err = call("run", [GOOD], "--train-on", "last")
    assert (status, "another plan" in error_line(err)) == (2, True)
    assert call("run", [GOOD])[0] == 0
