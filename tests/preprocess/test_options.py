"""Options on the command line and in YAML: each value is taken, or refused in one line with exit status 2."""

import json
import re
from dataclasses import fields

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from preprocess_jobs import INPUTS, TOKENIZER, error_line

from sft_shards.formats.errors import UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.preprocess.cli import cli
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.engines.engine import ENGINES, engine_class, engine_options
from sft_shards.preprocess.options import resolve

pytestmark = pytest.mark.unit
WHOLE = {"inputs": [str(INPUTS[0])], "tokenizer": str(TOKENIZER), "output": "never-made"}


def settings_of(path, *words):
    command = cli.commands["run"]
    context = command.make_context("run", ["--config", str(path), *words])
    return resolve(context, dict(context.params))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"max_length": 200.5}, r"max_length is 200\.5; expected a whole number of at least 2"),
        ({"max_length": True}, "max_length is True; expected a whole number"),
        ({"max_length": [3]}, r"max_length is \[3\]; expected a whole number"),
        ({"max_length": 1}, "max_length is 1; expected a whole number of at least 2"),
        ({"max_rejects": "many"}, "max_rejects is 'many'; expected a number such as 100, or a share such as 1%"),
        ({"max_rejects": 0.5}, "max_rejects is 0.5; expected a number"),
        ({"valid_fraction": "a tenth"}, "valid_fraction is 'a tenth'; expected a number from 0 to below 1"),
        ({"valid_fraction": float("nan")}, "valid_fraction is nan; expected a number from 0 to below 1"),
        ({"valid_fraction": 1}, "valid_fraction is 1; expected a number from 0 to below 1"),
        ({"workers": "many"}, "workers is 'many'; expected a whole number of at least 1"),
        ({"workers": 0}, "workers is 0; expected a whole number of at least 1"),
        ({"tokenizer": 5}, "tokenizer is 5; expected a text; write it in quotes"),
        ({"inputs": 5}, "inputs is 5; expected a text, or a list of texts"),
        ({"inputs": [5]}, r"inputs is \[5\]; expected a text, or a list of texts"),
        ({"output": ["a"]}, r"output is \['a'\]; expected a folder on this machine, as a text"),
        ({"output": "s3://bucket/shards"}, "output is 's3://bucket/shards'; expected a folder on this machine"),
        ({"engine": "slrm"}, "engine is 'slrm'; expected one of local, slurm, ray, kubernetes; did you mean 'slurm'"),
        ({"train_on": "al"}, "--train-on al: unknown; did you mean 'all'"),
        ({"train_on": False}, "train_on is False; expected a text; write it in quotes"),
        ({"dedup": "sometimes"}, "dedup is 'sometimes'; expected true or false"),
        ({"train_reasoning": 2}, "train_reasoning is 2; expected true or false"),
        ({"field": "q"}, "field is 'q'; expected a mapping, or a list of FIELD=COLUMN"),
        ({"field": {"instruction": None}}, "field is {'instruction': None}; expected a mapping"),
        ({"field": {"instrution": "q"}}, "--field instrution=…: no format has this field; did you mean 'instruction'"),
        ({"slurm_option": 5}, "slurm_option is 5; expected a mapping, or a list of KEY=VALUE"),
        ({"trust_remote_code": True}, "'trust_remote_code' lets a tokenizer's own code run"),
        ({"trust-remote-code": False}, "'trust-remote-code' lets a tokenizer's own code run"),
        ({"config_file": "other.yaml"}, "unknown key 'config_file'"),
        ({5: 1}, "unknown key 5"),
    ],
    ids=str,
)
def test_a_value_in_yaml_that_cannot_be_meant(preprocess, tmp_path, changes, match):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, **changes}), "utf-8")
    status, _, err = preprocess("run", "--config", path)
    assert status == 2
    assert re.search(f"{path}: {match}", error_line(err)), err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_length", "512", 512),
        ("max-length", 512, 512),
        ("max_length", None, None),
        ("max_rejects", 1, "1"),
        ("max_rejects", "1.5%", "1.5%"),
        ("valid_fraction", "0.1", 0.1),
        ("valid_fraction", 0, 0.0),
        ("workers", "3", 3),
        ("train_reasoning", False, False),
        ("train_reasoning", "no", False),
        ("dedup", True, True),
        ("inputs", "one.jsonl", ("one.jsonl",)),
        ("field", {"instruction": "q", "output": "a"}, {"instruction": "q", "output": "a"}),
        ("field", ["instruction=q"], {"instruction": "q"}),
        ("map_role", {"client": "user"}, {"client": "user"}),
    ],
)
def test_a_value_in_yaml_that_can_mean_one_thing(tmp_path, key, value, expected):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, key: value}), "utf-8")
    assert settings_of(path).values[key.replace("-", "_")] == expected


def test_sbatch_options_in_yaml(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("slurm_option: {partition: cpu, time: 10, exclusive: }\nengine: slurm\n" + yaml.safe_dump(WHOLE))
    assert settings_of(path).values["slurm_option"] == {"partition": "cpu", "time": "10", "exclusive": ""}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"max_length: [", "not YAML"),
        (b"a: 2024-99-99", "not YAML"),
        (b"a: \xff", "byte 3 is not UTF-8"),
        (b"[" * 5000, "not YAML"),
        (b"a: " + b"9" * 5000, "not YAML|unknown key"),
        (b"? [1]\n: 2", "not YAML"),
        (b"&a [*a]", "must be a mapping"),
        (b"tokenizer: &a [*a]", "tokenizer is .*; expected a text"),
        (b'tokenizer: "a\\0b"', "tokenizer is .*; expected a text"),
    ],
)
def test_a_file_that_is_no_configuration(preprocess, tmp_path, text, match):
    path = tmp_path / "job.yaml"
    path.write_bytes(text)
    status, _, err = preprocess("run", "--config", path)
    assert status == 2
    assert re.search(f"{path}: .*({match})", error_line(err)), err
    assert err.count("\n") == 1


KEYS = sorted({str(one.opts[-1]).lstrip("-") for one in cli.commands["run"].params} - {"config", "config_file"})
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=8)
    | st.sampled_from(["1%", "512", "0.5", "true", "all", "a=b", "openai", "-", "slurm", "s3://x"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_yaml_value_gives_a_configuration_or_one_line(tmp_path, changes):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, **changes}, allow_unicode=False), "utf-8")
    try:
        found = settings_of(path)
        config = found.config()
    except UsageError as error:
        assert error.exit_code == 2
        assert str(path) in str(error) or str(error).startswith(("--", "no ")), error
        return
    assert JobConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    types = {"max_length": (int, type(None)), "workers": (int, type(None)), "max_rejects": (str, type(None)),
             "valid_fraction": float, "shard_tokens": int, "dedup": bool, "tokenizer": str, "array": int}  # fmt: skip
    for name, kind in types.items():
        assert isinstance(found.values[name], kind), name


def test_the_command_line_wins(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, "max_length": 5, "field": {"output": "a"}}), "utf-8")
    found = settings_of(path, "--max-length", "500", "other.jsonl")
    assert (found.values["max_length"], found.values["inputs"]) == (500, ("other.jsonl",))
    assert found.in_file == {"tokenizer", "output", "field"}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_declares_what_it_takes(name):
    assert {option.name for option in engine_class(name).options} == {
        field.name for field in fields(engine_class(name))
    }


@pytest.mark.parametrize(
    ("words", "engine"),
    [
        (["--array", "3"], "local"),
        (["--follow"], "local"),
        (["--slurm-option", "time=1"], "ray"),
        (["--slurm-setup", "x"], "kubernetes"),
        (["--ray-address", "auto"], "slurm"),
        (["--image", "x"], "slurm"),
        (["--claim", "x"], "ray"),
        (["--mount", "/x"], "local"),
    ],
)
def test_an_option_of_another_engine_is_refused(preprocess, tmp_path, words, engine):
    arguments = ("run", INPUTS[0], "--tokenizer", TOKENIZER, "--output", tmp_path / "out", "--engine", engine)
    status, _, err = preprocess(*arguments, *words)
    assert status == 2
    assert f"{words[0]}: an option of --engine " in error_line(err)
    assert f"this is --engine {engine}" in error_line(err)
    assert not (tmp_path / "out").exists()
    assert words[0] in {option.opts[0] for option, _ in engine_options().values()}


def test_a_dry_run_shows_the_plan_and_writes_nothing(preprocess, tmp_path):
    arguments = ("run", INPUTS[1], "--tokenizer", TOKENIZER, "--output", tmp_path / "out", "--dry-run")
    status, out, err = preprocess(*arguments, "--shard-tokens", "6000")
    assert status == 0, err
    assert re.search(r"\d+ tasks over 1 file\(s\), .* template tokenizer\nnothing was written", out)
    assert f"{INPUTS[1]}: openai (jsonl)" in err
    assert "carry loss" in err
    assert not list(tmp_path.iterdir())
    status, out, _ = preprocess(*arguments, "--json")
    assert (status, json.loads(out)["sources"]) == (0, 1)
    assert not list(tmp_path.iterdir())


def test_keys_that_are_not_read_are_named_when_a_job_begins(preprocess, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "a", "id": n}, {"role": "assistant", "content": "b"}]} for n in (0, 1)
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out"
    status, _, err = preprocess("run", path, "--tokenizer", TOKENIZER, "--output", output, "--dry-run")
    assert status == 0, err
    assert "chat.jsonl: openai (jsonl); keys of messages that are not read: id (in 2 of 2)" in err
    for options in ([], ["--format", "openai", "--overwrite"]):
        status, _, err = preprocess("run", path, "--tokenizer", TOKENIZER, "--output", output, *options)
        assert status == 0, err
        assert [source.unread for source in Manifest.read(output).sources] == [("id (in 2 of 2)",)]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_an_address_is_no_output(preprocess, command):
    status, _, err = preprocess(command, INPUTS[0], "--tokenizer", TOKENIZER, "--output", "s3://bucket/shards")
    assert status == 2
    assert "s3://bucket/shards is an address; name a folder on this machine" in error_line(err)


def test_an_output_with_a_colon_in_its_name(preprocess, tmp_path):
    output = tmp_path / "a:b" / "s"
    assert preprocess("run", INPUTS[1], "--tokenizer", TOKENIZER, "--output", output, "--workers", 1)[0] == 0
    assert preprocess("verify", output)[0] == 0
    assert preprocess("inspect", output)[0] == 0


@pytest.mark.parametrize("name", [*cli.commands])
def test_help_says_defaults_in_one_way(preprocess, name):
    status, out, _ = preprocess(name, "--help")
    assert status == 0
    for word in ("[default", "without.", "Sentinel", "x>=", "careful", "RANGE"):
        assert word not in out
