"""Names of inputs before anything is loaded: what is not there is refused, and what may be there is left to the plan."""

import os
import subprocess
import sys

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.inputs import check_inputs


@pytest.mark.unit
@pytest.mark.parametrize(
    "given", ["-", "a.jsonl", "folder", "*.jsonl", "**/b.*", "owner/name", "owner/name@v1:config:train", "s3://b/x"]
)
def test_what_may_be_an_input_is_left_to_the_plan(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("a.jsonl", "folder/b.json"):
        (tmp_path / name).write_text("")
    check_inputs([given])


@pytest.mark.unit
@pytest.mark.parametrize("given", ["b.jsonl", "*.json", "folder/none.jsonl", "/none/x.jsonl", "folder/x:train"])
def test_what_cannot_be_one_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UsageError, match="no such file or folder; check the path"):
        check_inputs(["a.jsonl", given])


@pytest.mark.process
@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_at_once_what_is_done(tmp_path, terminal):
    (tmp_path / "in.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "sft_shards.preprocess.cli", "run", "in.jsonl", "--tokenizer", "./none"]
    done = subprocess.run(
        [*command, "--output", "out"], stderr=theirs if terminal else subprocess.PIPE, cwd=tmp_path, check=False
    )
    said = os.read(ours, 10_000).decode() if terminal else done.stderr.decode()
    os.close(ours)
    os.close(theirs)
    lines = [line for line in said.splitlines() if "no such folder" not in line]
    found = "in.jsonl: alpaca (jsonl)"
    assert lines == (["looking at the inputs", found, "loading the tokenizer ./none"] if terminal else [found])


@pytest.mark.process
def test_a_missing_input_is_refused_before_anything_is_loaded(tmp_path):
    code = (
        "import sys\nfrom sft_shards.preprocess.cli import main\n"
        "sys.argv = ['sft-preprocess', 'run', 'none.jsonl', '--tokenizer', 'none', '--output', 'out']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, *sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    status, *modules = done.stdout.split()
    assert status == "2"
    assert "none.jsonl: no such file or folder" in done.stderr
    assert not {"pyarrow", "jinja2", "tokenizers", "transformers", "sft_shards.preprocess.job"} & set(modules)
    assert not (tmp_path / "out").exists()
