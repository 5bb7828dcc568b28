"""`formats --try-template`: what becomes of records under a template, before anything is written."""

import json

import pytest
from preprocess_jobs import TOKENIZER, error_line
from template_texts import ARGUED, THINKS

pytestmark = pytest.mark.process

REASONED = [
    {"role": "user", "content": "Two and two"},
    {"role": "assistant", "content": "Four", "reasoning_content": "Adding"},
    {"role": "user", "content": "Plus one"},
    {"role": "assistant", "content": "Five", "reasoning_content": "One more"},
]
PLAIN = [{"role": "user", "content": "Hi ⟧"}, {"role": "assistant", "content": "Hello ⟦ you"}]


@pytest.fixture
def data(tmp_path):
    records = [
        {"messages": REASONED[2:]},
        {"messages": PLAIN},
        {"messages": REASONED},
        {"messages": [{"role": "narrator", "content": "x"}]},
        {"messages": PLAIN, "chat_template_kwargs": [1]},
        "broken",
    ]
    path = tmp_path / "talk.jsonl"
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(THINKS, "utf-8")
    return path


def test_one_example_of_each_outcome_with_its_reason_and_remedy(preprocess, tmp_path, data, template):
    words = ["formats", data, "--try-template", template, "--tokenizer", TOKENIZER]
    before = sorted(tmp_path.iterdir())
    status, out, err = preprocess(*words, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["template"], found["records"]) == ("mine.jinja", 6)
    assert [(one["kind"], one["reason"], one["records"], one["record"]) for one in found["outcomes"]] == [
        ("exact", "", 2, 0),
        ("rewritten", "turn_rewritten", 1, 2),
        ("refused", "unknown_role", 1, 3),
        ("refused", "wrong_type", 1, 4),
        ("refused", "broken_json", 1, 5),
    ]
    exact, rewritten, *refused = found["outcomes"]
    assert "assistant\n⟦<think>\nOne more\n</think>\n\nFive<|im_end|>⟧" in exact["detail"]
    assert "--rewritten-turns unroll" in rewritten["remedy"]
    assert "turn 1" in rewritten["detail"]
    assert all(one["remedy"] and one["source"] == str(data) for one in refused)
    assert found["notes"] == {"reasoning_dropped": 1}
    status, out, err = preprocess(*words)
    assert status == 0, err
    assert f"1 turn_rewritten, such as record 2 of {data}:" in out
    assert "remedy: give the role with --map-role" in out
    assert "exact      2\n" in out
    status, out, _ = preprocess(*words, "--records", 2)
    assert "rewritten  0\n" in out
    assert "refused    0\n" in out
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"


def test_the_counts_are_those_of_a_job(preprocess, tmp_path, data, template):
    words = [data, "--tokenizer", TOKENIZER]
    status, out, _ = preprocess("formats", *words, "--try-template", template, "--json")
    refused = {one["reason"]: one["records"] for one in json.loads(out)["outcomes"] if one["kind"] == "refused"}
    more = ["--template", template, "--rewritten-turns", "train", "--output", tmp_path / "out", "--workers", 1]
    status, out, err = preprocess("run", *words, *more, "--json")
    assert status == 0, err
    assert json.loads(out)["counts"]["rejected"] == dict(sorted(refused.items()))


def test_arguments_and_built_in_templates_are_tried_too(preprocess, tmp_path, data):
    argued = tmp_path / "argued.jinja"
    argued.write_text(ARGUED, "utf-8")
    words = ["formats", data, "--tokenizer", TOKENIZER]
    given = ["--template-arg", 'reasoning_effort="high"']
    status, out, err = preprocess(*words, "--try-template", argued, *given, "--json")
    assert status == 0, err
    assert "Effort: high" in json.loads(out)["outcomes"][0]["detail"]
    status, out, _ = preprocess(*words, "--try-template", "chatml", "--json")
    assert (status, json.loads(out)["template"]) == (0, "chatml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--try-template", "chatml"], "--try-template: no --tokenizer"),
        (["--tokenizer", TOKENIZER], "are for --try-template FILE"),
        (["--tokenizer", TOKENIZER, "--try-template", "gone.jinja"], "gone.jinja: no such file"),
        (["--tokenizer", TOKENIZER, "--try-template", "chatlm"], "no template 'chatlm'; did you mean 'chatml'?"),
        (["--tokenizer", TOKENIZER, "--try-template", "chatml", "--template-arg", "x=1"], "does not use it"),
    ],
    ids=str,
)
def test_a_call_that_is_wrong(preprocess, data, words, message):
    status, _, err = preprocess("formats", data, *words)
    assert status == 2
    assert message in error_line(err)


def test_no_data(preprocess):
    status, _, err = preprocess("formats", "--tokenizer", TOKENIZER, "--try-template", "chatml")
    assert status == 2
    assert "no INPUT" in error_line(err)
