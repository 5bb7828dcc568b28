"""`preview` shows what a job would write, and writes nothing."""

from __future__ import annotations

import json
import re

import pytest

from sft_shards.formats.shards import ShardDirectory

pytestmark = pytest.mark.unit


def test_it_shows_what_a_job_writes(preprocess, tmp_path, data, bpe_folder):
    inputs = [data / "openai_tr.jsonl", data / "alpaca_en.json"]
    status, out, _ = preprocess("preview", *inputs, "--tokenizer", bpe_folder, "-n", 4, "--json")
    assert status == 0
    shown = [json.loads(line) for line in out.splitlines()]
    assert [(one["source"], one["record"]) for one in shown] == [(str(path), at) for at in (0, 1) for path in inputs]
    assert list(tmp_path.iterdir()) == []
    assert preprocess("run", *inputs, "--tokenizer", bpe_folder, "--output", tmp_path / "out")[0] == 0
    rows = ShardDirectory(tmp_path / "out").split("train")
    for one, row in zip(shown, (0, 200, 1, 201), strict=True):
        ids, mask = rows[row]
        (sequence,) = one["sequences"]
        assert (sequence["tokens"], sequence["loss_mask"]) == (ids.tolist(), mask.tolist())


def test_a_record_that_would_be_left_out_says_why(preprocess, tmp_path, bpe_folder):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "a", "output": ""}\n{"instruction": "a", "output": "b"}\n')
    status, out, _ = preprocess("preview", path, "--tokenizer", bpe_folder)
    assert status == 0
    assert f"record 0 of {path} (alpaca, template tokenizer): LEFT OUT, empty_assistant_turn: " in out
    assert "fill it" in out
    assert "⟦b" in out


def test_a_template_is_tried_without_a_job(preprocess, tmp_path, data, bpe_folder):
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}")
    arguments = ["preview", data / "openai_tr.jsonl", "--tokenizer", bpe_folder, "-n", 1]
    status, out, err = preprocess(*arguments, "--template", template)
    assert status == 0, err
    assert "template mine.jinja" in out
    assert "<user>" in out
    status, out, _ = preprocess(*arguments, "--template", "chatml", "--tokens", "--record", 3)
    assert status == 0
    assert "record 3 of " in out
    lines = [re.fullmatch(r" *(\d+)  +(\d+)  ([+ ])  \|(.*)\|", line) for line in out.splitlines()[1:]]
    assert all(lines)
    assert [int(line[1]) for line in lines if line] == list(range(len(lines)))
    assert {line[3] for line in lines if line} == {" ", "+"}


def test_colours_on_demand_with_brackets_beside_them(preprocess, data, bpe_folder):
    arguments = ["preview", data / "openai_tr.jsonl", "--tokenizer", bpe_folder, "-n", 1]
    _, out, _ = preprocess(*arguments, "--color", "always")
    assert "\x1b[32m\x1b[1m⟦" in out
    assert "\x1b" not in preprocess(*arguments)[1]


@pytest.mark.parametrize(
    ("more", "status"), [(["--record", "999999"], 2), (["--template", "nonesuch"], 2), (["--format", "nonesuch"], 2)]
)
def test_wrong_calls(preprocess, data, bpe_folder, more, status):
    assert preprocess("preview", data / "openai_tr.jsonl", "--tokenizer", bpe_folder, *more)[0] == status
    assert preprocess("preview", data / "openai_tr.jsonl")[0] == 2
