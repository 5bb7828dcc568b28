"""`check`: what files are, and flags with which a job reads them: the proposal is given to a job, and it works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.unit

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
ALPACA = {"instruction": "Name a colour", "output": "Red"}
UNKNOWN: dict[str, dict[str, Any]] = {
    "columns": {"Question": "What is it?", "Answer": "A stone", "id": "7"},
    "two texts": {"left": "What is it, please?", "right": "A stone"},
    "speakers": {
        "utterances": [{"speaker": "Customer", "text": "Where is it?"}, {"speaker": "Agent", "text": "Here."}]
    },
    "strangers": {"messages": [{"role": "Anna", "content": "Where?"}, {"role": "Bert", "content": "Here."}]},
    "nested": {"data": {"turns": MESSAGES["messages"]}},
    "chatml": {"raw": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"},
    "turns": {"rounds": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
}
FLAGS = {
    "columns": ["--format", "alpaca", "--field", "instruction=Question", "--field", "output=Answer"],
    "two texts": ["--format", "alpaca", "--field", "instruction=left", "--field", "output=right"],
    "speakers": [
        *["--format", "openai", "--field", "messages=utterances", "--field", "role=speaker", "--field", "content=text"],
        *["--map-role", "Customer=user", "--map-role", "Agent=assistant"],
    ],
    "strangers": ["--map-role", "Anna=user", "--map-role", "Bert=assistant"],
    "nested": ["--format", "openai", "--field", "messages=data.turns"],
    "chatml": ["--format", "chatml", "--field", "text=raw"],
    "turns": ["--format", "sharegpt", "--field", "messages=rounds"],
}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    return path


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_proposed_reads_the_file(preprocess, tmp_path, bpe_folder, name):
    path = write(tmp_path / "a.jsonl", *[UNKNOWN[name]] * 10)
    status, out, _ = preprocess("check", path, "--json")
    (file,) = json.loads(out)["files"]
    assert (status, file["flags"], file["usable"]) == (0, FLAGS[name], 10)
    command = shlex.split(json.loads(out)["next"]["command"])
    assert command[:2] == ["sft-preprocess", "run"]
    words = [str(tmp_path / "out") if word == "shards" else word for word in command[1:]]
    words[words.index("YOUR_TOKENIZER")] = str(bpe_folder)
    status, out, err = preprocess(*words, "--json")
    assert status == 0, err
    assert json.loads(out)["counts"] == {"read": 10, "written": 10, "rejected": {}}


def test_a_folder_of_mixed_files_is_answered_in_one_go(preprocess, tmp_path, bpe_folder):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "a.jsonl", *[ALPACA] * 3, {"instruction": "x", "output": ""})
    write(folder / "b.jsonl", *[MESSAGES] * 3)
    write(folder / "c.jsonl", *[UNKNOWN["columns"]] * 3)
    write(folder / "d.jsonl", {"a": 1})
    (folder / "e.json").write_text("")
    pq.write_table(pa.Table.from_pylist([MESSAGES] * 2000), folder / "f.parquet")
    status, out, _ = preprocess("check", folder, "--json")
    found = json.loads(out)
    files = {Path(one["path"]).name: one for one in found["files"]}
    assert status == 1, "two of them cannot be used"
    assert {name: one["format"] for name, one in files.items()} == {
        "a.jsonl": "alpaca",
        "b.jsonl": "openai",
        "c.jsonl": "alpaca",
        "d.jsonl": "",
        "e.json": "",
        "f.parquet": "openai",
    }
    assert [(one["reason"], one["first"]) for one in files["a.jsonl"]["refused"]] == [("empty_assistant_turn", 3)]
    assert files["a.jsonl"]["roles"] == {"user": 3, "assistant": 3}
    assert (files["f.parquet"]["records"], files["f.parquet"]["looked_at"]) == (2000, 1000)
    assert "empty" in files["e.json"]["problem"]
    assert "none of alpaca" in files["d.jsonl"]["problem"]
    (tmp_path / "sources.yaml").write_text(found["next"]["yaml"], "utf-8")
    status, out, err = preprocess(
        *[
            "run",
            "--config",
            tmp_path / "sources.yaml",
            "--output",
            tmp_path / "out",
            "--tokenizer",
            bpe_folder,
            "--json",
        ]
    )
    assert status == 0, err
    assert json.loads(out)["counts"] == {"read": 2010, "written": 2009, "rejected": {"empty_assistant_turn": 1}}


def test_lines_for_people(preprocess, tmp_path):
    write(tmp_path / "a.jsonl", *[UNKNOWN["columns"]] * 3)
    write(tmp_path / "b.jsonl", *[MESSAGES] * 2, *[ALPACA])
    status, out, _ = preprocess("check", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == [f"{tmp_path}/a.jsonl", "jsonl", "3", "alpaca", "100%", "0", "!"]
    assert rows[2] == [f"{tmp_path}/b.jsonl", "jsonl", "3", "openai", "67%", "1", "!"]
    assert "  give: --format alpaca --field instruction=Question --field output=Answer\n" in out
    assert "  without flags: mixes formats (openai, alpaca)\n" in out
    assert "  would be left out: 1 of 3 missing_field\n" in out


def test_what_is_known_already_is_not_proposed_again(preprocess, tmp_path):
    path = write(tmp_path / "a.jsonl", *[UNKNOWN["columns"]] * 3)
    given = ["--format", "alpaca", "--field", "instruction=Question"]
    found = json.loads(preprocess("check", path, *given, "--json")[1])
    assert found["files"][0]["flags"] == ["--field", "output=Answer"]
    assert " ".join(given) in found["next"]["command"]


def test_only_so_many_records_are_read(preprocess, tmp_path):
    path = write(tmp_path / "a.jsonl", *[ALPACA] * 20)
    (file,) = json.loads(preprocess("check", path, "--records", 5, "--json")[1])["files"]
    assert (file["looked_at"], file["complete"]) == (5, False)
    (file,) = json.loads(preprocess("check", path, "--records", 0, "--json")[1])["files"]
    assert (file["looked_at"], file["records"], file["complete"]) == (20, 20, True)


def test_a_job_that_knows_no_format_points_to_it(preprocess, tmp_path, bpe_folder):
    path = write(tmp_path / "a.jsonl", UNKNOWN["columns"])
    status, _, err = preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)
    assert (status, f"'sft-preprocess check {path}' proposes options" in err) == (2, True)


def test_an_input_that_is_not_there_is_a_wrong_call(preprocess, tmp_path):
    assert preprocess("check", tmp_path / "a.jsonl")[0] == 2
    assert preprocess("check", "-")[0] == 2


def test_a_format_that_yields_to_others_is_no_mixture_as_for_a_job(preprocess, tmp_path, bpe_folder):
    """Alpaca's form came before `instances`, so a file with records of both is one of Alpaca's."""
    instances = {"instruction": "Name one", "instances": [{"input": "", "output": "Blue"}]}
    path = write(tmp_path / "a.jsonl", *[ALPACA] * 6, *[instances] * 2)
    status, out, _ = preprocess("check", path, "--json")
    (file,) = json.loads(out)["files"]
    assert (status, file["format"], file["flags"], file["problem"]) == (0, "alpaca", [], "")
    assert [(one["reason"], one["records"]) for one in file["refused"]] == [("missing_field", 2)]
    status, out, err = preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder, "--json")
    assert status == 0, err
    assert json.loads(out)["counts"] == {"read": 8, "written": 6, "rejected": {"missing_field": 2}}
