"""`--template FILE.jinja` and `--template-arg`: read once when the job is planned, kept with the plan and the shards, and
the same text as transformers renders with the same file and arguments."""

import json
import os
import shutil

import pytest
import yaml
from preprocess_jobs import INPUTS, TOKENIZER, Held, call, contents, error_line, start
from template_texts import ARGUED

from sft_shards.formats.shards import Manifest, ShardDirectory

pytestmark = pytest.mark.process


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(ARGUED, "utf-8")
    return path


@pytest.fixture
def data(tmp_path):
    lines = INPUTS[1].read_text("utf-8").splitlines(keepends=True)[:60]
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(lines), "utf-8")
    return path


def options(template, output):
    return ["--tokenizer", TOKENIZER, "--shard-tokens", 2500, "--template", template, "--output", output,
            "--template-arg", "enable_thinking=false", "--template-arg", 'reasoning_effort="high"']  # fmt: skip


def texts_of(output, data):
    """The text of every row in the order of the file, and what transformers renders of it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    split = ShardDirectory(output).split("train")
    got = [tokenizer.decode(split[row][0]) for row in range(len(split))]
    arguments = {"enable_thinking": False, "reasoning_effort": "high"}
    messages = [json.loads(line)["messages"] for line in data.read_text("utf-8").splitlines()]
    expected = [
        tokenizer.apply_chat_template(one, chat_template=ARGUED, tokenize=False, **arguments) for one in messages
    ]
    return got, expected


def test_the_text_is_that_of_transformers_and_stands_in_the_directory(preprocess, tmp_path, template, data):
    output = tmp_path / "out"
    status, out, err = preprocess("run", data, *options(template, output), "--workers", 1, "--verify-every", 1)
    assert status == 0, err
    assert "template mine.jinja" in out
    assert 'template mine.jinja with enable_thinking=false, reasoning_effort="high"' in err
    got, expected = texts_of(output, data)
    assert got == expected
    manifest = Manifest.read(output)
    assert manifest.template.source == ARGUED
    assert manifest.template.arguments == {"enable_thinking": False, "reasoning_effort": "high"}
    assert manifest.template.header == "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert (manifest.config["template"], manifest.template.name) == ("mine.jinja", "mine.jinja")
    assert str(tmp_path) not in json.dumps([manifest.config["template"], manifest.as_dict()["template"]])
    assert (output / "template" / "mine.jinja").read_text("utf-8") == ARGUED
    assert preprocess("verify", output)[0] == 0
    again = tmp_path / "again"
    status, _, err = preprocess("run", data, *options(output / "template" / "mine.jinja", again), "--workers", 1,
                                "--verify-every", 1)  # fmt: skip
    assert status == 0, err
    assert contents(again) == contents(output), "the copy repeats the job"
    (output / "template" / "mine.jinja").write_text("x", "utf-8")
    status, out, _ = preprocess("verify", output)
    assert status == 1
    assert "template/mine.jinja: not the bytes that the manifest names" in out


def test_a_job_whose_template_is_gone_goes_on_in_every_way(preprocess, tmp_path, template, data):
    reference = tmp_path / "reference"
    assert preprocess("run", data, *options(template, reference), "--workers", 1)[0] == 0
    stepwise, resumed = tmp_path / "stepwise", tmp_path / "resumed"
    for output in (stepwise, resumed):
        assert preprocess("plan", data, *options(template, output))[0] == 0
    template.unlink()
    assert preprocess("task", "--output", stepwise, "--workers", 2)[0] == 0
    assert preprocess("finalize", "--output", stepwise)[0] == 0
    status, _, err = preprocess("run", data, *options(template, resumed), "--workers", 1)
    assert status == 0, err
    assert contents(stepwise) == contents(resumed) == contents(reference)
    status, _, err = preprocess("run", data, *options(template, resumed))
    assert status == 0, err
    assert "they are the same, nothing is left to do" in err
    status, _, err = preprocess("run", data, *options(template, tmp_path / "new"))
    assert status == 2
    assert f"--template {template}: no such file" in error_line(err)
    assert not (tmp_path / "new").exists()


def test_a_job_that_is_killed_goes_on_without_its_template(tmp_path, template, data):
    reference, output = tmp_path / "reference", tmp_path / "out"
    words = options(template, output)
    call("run", data, *options(template, reference), "--workers", 1)
    held = Held(tmp_path / "held")
    process = start("run", data, *words, "--workers", 1, env={**os.environ, **held.environment})
    held.wait(process)
    process.kill()
    process.communicate()
    template.unlink()
    call("run", data, *words, "--workers", 2)
    assert contents(output) == contents(reference)


def test_another_file_of_the_same_name_is_another_job(preprocess, tmp_path, template, data):
    output = tmp_path / "out"
    assert preprocess("plan", data, *options(template, output))[0] == 0
    template.write_text(ARGUED + " ", "utf-8")
    status, _, err = preprocess("run", data, *options(template, output))
    assert status == 2
    assert "another plan (template_sha256" in error_line(err)
    template.write_text(ARGUED, "utf-8")
    assert preprocess("run", data, *options(template, output), "--workers", 1)[0] == 0
    template.write_text(ARGUED + " ", "utf-8")
    status, _, err = preprocess("run", data, *options(template, output))
    assert status == 2
    assert "template.sha256" in error_line(err)
    plan = tmp_path / "planned"
    assert preprocess("plan", data, *options(template, plan))[0] == 0
    path = plan / ".work" / "plan.json"
    path.write_text(path.read_text("utf-8").replace("Effort", "Affort"), "utf-8")
    status, _, err = preprocess("task", "--output", plan)
    assert status == 1
    assert "template_source: its SHA-256 is not the one that is named" in error_line(err)


def test_what_was_made_with_other_arguments_is_kept_apart(preprocess, tmp_path, template, data):
    one, other, third = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    words = ["--tokenizer", TOKENIZER, "--template", template, "--workers", 1]
    assert preprocess("run", data, *words, "--output", one, "--template-arg", "enable_thinking=false")[0] == 0
    assert preprocess("run", data, *words, "--output", other, "--template-arg", "enable_thinking=true")[0] == 0
    status, out, _ = preprocess("diff", one, other)
    assert status == 1
    assert "template.arguments.enable_thinking: false → true" in out
    status, _, err = preprocess("merge", one, other, "--output", third)
    assert status == 2
    assert "with other template arguments than" in error_line(err)
    assert "enable_thinking: false → true" in err
    status, _, err = preprocess("run", data, *words, "--output", third, "--extend", one)
    assert status == 2
    assert "config.template_arg" in error_line(err)
    shutil.copytree(one, tmp_path / "copy")
    assert preprocess("merge", one, tmp_path / "copy", "--output", third)[0] == 0
    assert (third / "template" / "mine.jinja").read_text("utf-8") == ARGUED
    assert preprocess("verify", third)[0] == 0


def test_arguments_in_yaml_are_those_of_the_call(preprocess, tmp_path, template, data):
    output, by_file = tmp_path / "out", tmp_path / "by-file"
    assert preprocess("run", data, *options(template, output), "--workers", 1)[0] == 0
    path = tmp_path / "job.yaml"
    values = {"inputs": str(data), "tokenizer": str(TOKENIZER), "shard_tokens": 2500, "template": str(template)}
    arguments = {"enable_thinking": False, "reasoning_effort": "high", "thinking": None}
    path.write_text(yaml.safe_dump({**values, "template_arg": arguments}), "utf-8")
    status, _, err = preprocess("run", "--config", path, "--output", by_file, "--workers", 1)
    assert status == 0, err
    assert contents(by_file) == contents(output)
    status, out, _ = preprocess("run", "--config", path, "--output", tmp_path / "k", "--engine", "kubernetes")
    assert status == 0
    command = json.loads(out)["items"][0]["spec"]["template"]["spec"]["initContainers"][0]["command"]
    begin = command.index("--template-arg")
    words = ["--template-arg", "enable_thinking=false", "--template-arg", 'reasoning_effort="high"']
    assert command[begin : begin + 4] == words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; name a chat template"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"{% for", "line 1: "),
        (b"{#" + b"x" * (600 << 10) + b"#}", "more than 524,288 bytes"),
        (b"{#" + b"x" * (200 << 10) + b"#}", "a template of 204,804 characters; at most 131,072 are taken"),
    ],
    ids=["empty", "bytes", "broken", "huge", "large"],
)
def test_a_file_that_is_no_template(preprocess, tmp_path, data, content, message):
    path = tmp_path / "bad.jinja"
    path.write_bytes(content)
    status, _, err = preprocess("run", data, "--tokenizer", TOKENIZER, "--template", path, "--output", tmp_path / "o")
    assert status == 2
    assert message in error_line(err)
    assert not (tmp_path / "o").exists()


def test_names_that_are_no_template_and_no_argument(preprocess, tmp_path, data):
    (tmp_path / "folder").mkdir()
    words = ["run", data, "--tokenizer", TOKENIZER, "--output", tmp_path / "o"]
    for more, message in (
        (["--template", "chatlm"], "no template 'chatlm'; did you mean 'chatml'?, or name a file that ends in .jinja"),
        (["--template", tmp_path / "gone.jinja"], "gone.jinja: no such file"),
        (["--template", tmp_path / "folder"], f"no template '{tmp_path / 'folder'}'"),
        (["--template-arg", "enable_thinking=false"], "template tokenizer does not use it"),
        (["--template-arg", "effort=high"], """a text needs quotes of its own: --template-arg 'effort="high"'"""),
    ):
        status, _, err = preprocess(*words, *more)
        assert status == 2
        assert message in error_line(err)
        assert not (tmp_path / "o").exists()
