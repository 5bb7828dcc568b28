"""Calls and data that are wrong: one line that names the thing and the remedy, the right status, nothing half-written."""

import json
import re

import pytest

pytestmark = pytest.mark.unit

GOOD = {"instruction": "Name a colour.", "output": "Blue."}


def write(path, *records):
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), "utf-8")
    return path


def one_line(err):
    lines = [line for line in err.splitlines() if line.startswith("sft-preprocess: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.fixture
def refused(preprocess, tmp_path, bpe_folder):
    """Call `run`; it must fail with a status, in one line that matches, and leave no manifest."""

    def call(*arguments, status=2, match, tokenizer=bpe_folder, output=tmp_path / "out"):
        got, _, err = preprocess("run", *arguments, "--output", output, "--tokenizer", tokenizer)
        assert got == status, err
        line = one_line(err)
        assert re.search(match, line), line
        assert not (output / "manifest.json").exists()

    return call


def test_inputs_that_cannot_be_used(refused, tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.txt").write_text("x")
    (tmp_path / "text.jsonl").write_text("hello\n")
    refused(tmp_path / "gone.jsonl", match=r"gone\.jsonl: no such file or folder; check")
    refused(tmp_path / "*.csv.gone", match=r"\*\.csv\.gone: no such file")
    refused(tmp_path / "empty.jsonl", match=r"empty\.jsonl: empty; remove")
    refused(tmp_path / "blank.jsonl", match=r"blank\.jsonl: empty")
    refused(tmp_path / "nothing", match=r"nothing: nothing readable in this folder; looked for")
    refused(tmp_path / "text.jsonl", match=r"text\.jsonl: neither JSON nor Parquet")


def test_a_call_without_what_it_needs(preprocess, tmp_path, bpe_folder):
    path = write(tmp_path / "a.jsonl", GOOD)
    for arguments, match in (
        (["run", path, "--tokenizer", bpe_folder], "no --output"),
        (["run", path, "--output", tmp_path / "o"], "no --tokenizer"),
        (["run", "--output", tmp_path / "o", "--tokenizer", bpe_folder], "no INPUT"),
        (["run", path, "--outptu", "x"], "No such option.*--output"),
        (["runn"], "No such command"),
    ):
        status, _, err = preprocess(*arguments)
        assert status == 2
        assert re.search(match, one_line(err))
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--format", "alpacca"], "did you mean 'alpaca'"),
        (["--template", "chatnl"], "did you mean 'chatml'"),
        (["--train-on", "al"], "did you mean 'all'"),
        (["--overlong", "cut"], "--overlong cut: unknown"),
        (["--max-length", "1"], "at least 2"),
        (["--valid-fraction", "0.6", "--test-fraction", "0.4"], "leave nothing for training"),
        (["--field", "instruction"], "NAME=NAME"),
        (["--field", "instrution=q"], "did you mean 'instruction'"),
        (["--max-rejects", "many"], "--max-rejects many: must be a number"),
        (["--template", "llama3"], "llama3.*no stop token|llama3.*turn end unknown"),
    ],
)
def test_options_that_are_wrong(refused, tmp_path, options, match):
    refused(write(tmp_path / "a.jsonl", GOOD), *options, match=match)


def test_tokenizers_that_cannot_be_used(refused, tmp_path, make_tokenizer):
    path = write(
        tmp_path / "a.jsonl", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    )
    refused(path, tokenizer=tmp_path / "gone", match=r"gone: no such folder; name a folder")
    (tmp_path / "bare").mkdir()
    refused(path, tokenizer=tmp_path / "bare", match="cannot be loaded")
    refused(path, tokenizer=make_tokenizer("bytes", None), match=r"has no chat template; choose one with --template")
    folder = tmp_path / "broken-template"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((make_tokenizer("bytes") / name).read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{% for %}"}))
    refused(path, tokenizer=folder, match=r"template tokenizer: line 1: .*--template")
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ messages }}"}))
    refused(path, tokenizer=folder, match="--template")


def test_a_tokenizer_without_a_template_takes_alpaca_records(preprocess, tmp_path, make_tokenizer):
    path = write(tmp_path / "a.jsonl", GOOD)
    status, out, err = preprocess(
        "run", path, "--output", tmp_path / "out", "--tokenizer", make_tokenizer("bytes", None)
    )
    assert status == 0, err
    assert "template alpaca" in out


def test_broken_records_are_left_out_and_counted(preprocess, tmp_path, bpe_folder):
    path = write(
        tmp_path / "a.jsonl",
        GOOD,
        '{"instruction": "cut',
        {"instruction": "Q", "output": ""},
        {"instruction": "Q"},
        b'{"instruction": "\xff", "output": "x"}'.decode("latin-1"),
        GOOD,
    )
    path.write_bytes(path.read_bytes().replace("\xff".encode(), b"\xff"))
    status, out, err = preprocess("run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder)
    assert status == 0, err
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert [(one["record"], one["reason"]) for one in rejects] == [
        (1, "broken_json"),
        (2, "empty_assistant_turn"),
        (3, "missing_field"),
        (4, "broken_utf8"),
    ]
    assert all(one["source"] == str(path) and one["detail"] for one in rejects)
    for one in rejects:
        assert f"1 {one['reason']}" in out


def test_too_many_rejects_publish_nothing(refused, tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, GOOD, {"instruction": "Q"}, {"instruction": "Q"})
    refused(
        path,
        "--max-rejects",
        "1",
        status=1,
        match=r"2 of 4 records were left out \(missing_field 2\).*--max-rejects 1.*rejects\.jsonl",
    )
    assert len((tmp_path / "out" / "rejects.jsonl").read_text("utf-8").splitlines()) == 2
    refused(path, "--max-rejects", "49%", "--overwrite", status=1, match="49%")


def test_limits_that_are_kept(preprocess, tmp_path, bpe_folder):
    path = write(tmp_path / "a.jsonl", GOOD, GOOD, {"instruction": "Q"}, {"instruction": "Q"})
    for at, limit in enumerate(("2", "50%")):
        arguments = ("run", path, "--output", tmp_path / str(at), "--tokenizer", bpe_folder, "--max-rejects", limit)
        assert preprocess(*arguments)[0] == 0


def test_nothing_left_is_an_error(refused, tmp_path):
    messages = {"messages": [{"role": "user", "content": "a"}]}
    refused(
        write(tmp_path / "a.jsonl", messages), status=1, match=r"all 1 records were left out \(no_assistant_turn 1\)"
    )


def test_a_mixture_of_formats_needs_to_be_told(refused, preprocess, tmp_path, bpe_folder):
    path = write(
        tmp_path / "a.jsonl",
        GOOD,
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    )
    refused(path, match="mixes formats: alpaca .record 0., openai .record 1.; choose one with --format")
    status, _, _ = preprocess(
        "run", path, "--output", tmp_path / "out", "--tokenizer", bpe_folder, "--format", "openai"
    )
    assert status == 0
    assert json.loads((tmp_path / "out" / "rejects.jsonl").read_text("utf-8"))["record"] == 0


def test_columns_nobody_knows(refused, tmp_path):
    refused(write(tmp_path / "a.jsonl", {"foo": "x", "bar": "y"}), match=r"record 0 has columns foo, bar.*--field")


def test_outputs_that_exist(refused, preprocess, tmp_path, bpe_folder):
    path = write(tmp_path / "a.jsonl", GOOD)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    refused(path, output=other, match="exists and is not a shard directory; choose another --output")
    refused(path, "--overwrite", output=other, match="exists and is not a shard directory")
    assert (other / "thesis.tex").read_text() == "x"
    refused(path, output=other / "thesis.tex", match="is a file")
    out = tmp_path / "out"
    assert preprocess("run", path, "--output", out, "--tokenizer", bpe_folder)[0] == 0
    before = (out / "manifest.json").read_bytes()
    status, _, err = preprocess("run", path, "--output", out, "--tokenizer", bpe_folder, "--train-on", "last")
    assert (status, "already holds a complete shard directory" in one_line(err)) == (2, True)
    assert (out / "manifest.json").read_bytes() == before
    assert preprocess("run", path, "--output", out, "--tokenizer", bpe_folder, "--overwrite")[0] == 0
    assert (out / "manifest.json").read_bytes() == before
    refused(tmp_path, output=tmp_path / "inside", match="overlaps with")


def test_yaml_holds_options_and_the_call_wins(preprocess, tmp_path, bpe_folder):
    path = write(tmp_path / "a.jsonl", {"q": "Name a colour.", "a": "Blue."})
    config = tmp_path / "job.yaml"
    config.write_text(
        f"inputs: [{path}]\ntokenizer: {bpe_folder}\noutput: {tmp_path / 'yaml'}\nformat: alpaca\n"
        "field: {instruction: q, output: a}\nmax-length: 5\noverlong: error\n"
    )
    assert preprocess("run", "--config", config, "--output", tmp_path / "out", "--max-length", "500")[0] == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert (manifest["config"]["max_length"], manifest["config"]["overlong"]) == (500, "error")
    status, _, err = preprocess("run", "--config", config)
    assert status == 1
    assert re.search(r"tokens, more than --max-length 5", one_line(err))
    for text, match in (
        ("max-lenght: 5", "did you mean 'max_length'"),
        ("- a", "must be a mapping"),
        ("a: [", "not YAML"),
    ):
        config.write_text(text)
        status, _, err = preprocess("run", "--config", config)
        assert status == 2
        assert re.search(match, one_line(err))
    status, _, err = preprocess("run", "--config", tmp_path / "gone.yaml")
    assert (status, "gone.yaml: cannot be read" in one_line(err)) == (2, True)


def test_reading_commands_on_what_is_no_shard_directory(preprocess, tmp_path, data, bpe_folder):
    (tmp_path / "empty").mkdir()
    for command in ("verify", "inspect"):
        status, _, err = preprocess(command, tmp_path / "gone")
        assert (status, "no such shard directory" in one_line(err)) == (1, True)
        status, _, err = preprocess(command, tmp_path / "empty")
        assert (status, "no manifest.json" in one_line(err)) == (1, True)
    assert preprocess("run", data / "alpaca_en.json", "--output", tmp_path / "out", "--tokenizer", bpe_folder)[0] == 0
    status, _, err = preprocess("inspect", tmp_path / "out", "--row", "300")
    assert (status, "row 300 is outside 0..299" in one_line(err)) == (2, True)
    status, _, err = preprocess("inspect", tmp_path / "out", "--split", "trian")
    assert (status, "did you mean 'train'" in one_line(err)) == (2, True)
