"""Records that once ended a job with a traceback are left out with a reason, and the others stay."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.formats.nesting import MAX_NESTING
from sft_shards.formats.records import FieldMap
from sft_shards.formats.records.openai import OpenAI
from sft_shards.preprocess.sources import PartReader, cut, find_sources

pytestmark = pytest.mark.unit

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d"}}
CHATML = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"


def calling(arguments, question="Hi"):
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "x", "tool_calls": [call]}]
    return {"messages": turns}


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return {"a": value}


HOSTILE = {
    "wrong_type": [{**GOOD, "tools": [{"function": None}]}, {**GOOD, "tools": [{"function": "f"}]}],
    "nested_too_deeply": [
        calling("[" * 100_000),
        calling("[" * 300 + "]" * 300),
        calling(nested(400)),
        calling(nested(MAX_NESTING - 2)),
    ],
    "unknown_role": [{"messages": [{"role": "\udfff", "content": "x"}]}],
    "reserved_character": [
        calling({"\ufdd4": 1}),
    ],
}


@pytest.fixture
def rejects(preprocess, bpe_folder, tmp_path):
    """Run a file; gives the reason of each record that was left out, by number, after checking the rest."""

    def call(path, written, *options):
        output = tmp_path / f"out-{path.name}"
        status, _, err = preprocess("run", path, "--output", output, "--tokenizer", bpe_folder, *options)
        assert status == 0, err
        counts = json.loads((output / "manifest.json").read_text("utf-8"))["counts"]
        assert counts["written"] == written
        lines = [json.loads(line) for line in (output / "rejects.jsonl").read_text("utf-8").splitlines()]
        return {line["record"]: line["reason"] for line in lines}

    return call


def test_each_is_left_out_with_its_reason(rejects, tmp_path):
    path = tmp_path / "in.jsonl"
    records = [record for kind in HOSTILE.values() for record in kind]
    private_use = {"messages": [{"role": "user", "content": "\U000f0fff <|im_end|>"}, GOOD["messages"][1]]}
    lines = [GOOD, *records, private_use, GOOD]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    reasons = [reason for reason, kind in HOSTILE.items() for _ in kind]
    assert rejects(path, 3) == dict(enumerate(reasons, 1))


def test_what_a_reject_quotes_is_cut(rejects, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({"messages": [{"role": "r" * 10**6}]}) + "\n")
    assert rejects(path, 1) == {1: "unknown_role"}
    assert (tmp_path / "out-in.jsonl" / "rejects.jsonl").stat().st_size < 5000


def test_tools_of_a_table_may_be_null(rejects, tmp_path):
    tools = [[TOOL], [{"type": "function", "function": None}]]
    path = tmp_path / "tools.parquet"
    pq.write_table(pa.table({"messages": [GOOD["messages"]] * 2, "tools": tools}), path)
    assert rejects(path, 1) == {1: "wrong_type"}


def test_a_tool_in_the_short_form_may_have_a_null_function():
    short = {"name": "f", "description": "d", "function": None}
    [tool] = OpenAI().read({**GOOD, "tools": [short]}, FieldMap()).tools
    assert tool == TOOL


@pytest.mark.parametrize("nested_field", [False, True])
def test_columns_of_the_same_name_are_a_reject(rejects, tmp_path, nested_field):
    path = tmp_path / "twice.parquet"
    texts = [pa.array([CHATML.format(letter)] * 2) for letter in "AB"]
    if nested_field:
        other = pa.StructArray.from_arrays(texts, ["same", "same"])
        table = pa.table([texts[0], other], names=["text", "other"])
    else:
        table = pa.table(texts, names=["text", "text"])
    pq.write_table(table, path)
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps({"text": CHATML.format("C")}) + "\n")
    assert rejects(path, 1, good, "--format", "chatml") == {0: "duplicate_column", 1: "duplicate_column"}


def test_a_header_that_names_a_column_twice(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("q,a,q\n1,2,3\n")
    [source] = find_sources([str(path)])
    [(_, error)] = [item for batch in PartReader(source, cut(source, 100)[0]).batches() for item in batch]
    assert isinstance(error, RecordError)
    assert error.reason == "duplicate_column"


def test_a_file_of_which_nothing_can_be_read_says_why(preprocess, bpe_folder, tmp_path):
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.table([pa.array(["x"])] * 2, names=["text", "text"]), path)
    status, _, err = preprocess("run", path, "--output", tmp_path / "o", "--tokenizer", bpe_folder)
    assert status == 2
    assert "record 0: duplicate_column: two columns or fields are called 'text'" in err


@pytest.mark.parametrize("brackets", ["[" * 2_000_000, "[" * 1_000_000 + "]" * 1_000_000, '{"a":' * 500_000])
def test_a_file_of_brackets_can_be_planned(rejects, preprocess, bpe_folder, tmp_path, brackets):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + brackets + "\n")
    assert rejects(path, 1) == {1: "nested_too_deeply"}
    for name in ("a.jsonl", "a.json"):
        (tmp_path / name).write_text(brackets)
        status, _, err = preprocess("run", tmp_path / name, "--output", tmp_path / "o", "--tokenizer", bpe_folder)
        assert status in (1, 2)
        assert err.count("\n") == 1
        assert name in err


def test_an_array_closed_by_a_brace_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[\n" + json.dumps(GOOD) + ",\n" + json.dumps(GOOD) + "}\n")
    [source] = find_sources([str(path)])
    with pytest.raises(DataError, match=r"closed by } instead of \]"):
        cut(source, 100)


def test_a_value_that_python_has_no_type_for(rejects, tmp_path):
    path = tmp_path / "dates.parquet"
    days = pa.array([0, 10**8, 0], pa.int32()).cast(pa.date32())
    tools = [[TOOL]] * 3
    pq.write_table(pa.table({"messages": [GOOD["messages"]] * 3, "tools": tools, "day": days}), path)
    assert rejects(path, 2) == {1: "wrong_type"}


def test_a_bug_is_counted_reported_and_limited(preprocess, bpe_folder, tmp_path, monkeypatch):
    read = OpenAI.read

    def broken(self, record, fields):
        if "tools" in record:
            raise KeyError("secret")
        return read(self, record, fields)

    monkeypatch.setattr(OpenAI, "read", broken)
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [GOOD, {**GOOD, "tools": [TOOL]}, GOOD]))
    arguments = ("--output", tmp_path / "o", "--tokenizer", bpe_folder)
    status, out, err = preprocess("run", path, *arguments)
    assert status == 0
    assert "left out: 1 internal_error" in out
    [line] = [line for line in err.splitlines() if line.startswith("sft-preprocess: ")]
    assert line.startswith("sft-preprocess: a bug in sft-shards left 1 record out: KeyError at ")
    assert line.endswith(f"report it with record 1 of {path}")
    assert "secret" not in line
    status, _, err = preprocess("run", path, "--max-rejects", "0", "--overwrite", *arguments)
    assert status == 1
    assert "internal_error 1; internal_error is a bug in sft-shards" in err


@pytest.mark.parametrize("module", ["tasks.task", "tasks.plan"])
def test_memory_that_runs_out_is_one_line_and_no_reject(preprocess, bpe_folder, tmp_path, monkeypatch, module):
    path = tmp_path / "in.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 30)
    name = {"tasks.task": "TaskWriter.append", "tasks.plan": "configured_template"}[module]

    def out_of_memory(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(f"sft_shards.preprocess.{module}.{name}", out_of_memory)
    status, _, err = preprocess("run", path, "--output", tmp_path / "o", "--tokenizer", bpe_folder)
    assert status == 1
    [line] = [line for line in err.splitlines() if "sft-preprocess: " in line]
    assert "out of memory" in line
    assert "--max-record-bytes" in line
    assert "Traceback" not in err
