"""Records with `documents` and `chat_template_kwargs` among others, from lines and tables: what transformers renders."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_jobs import TOKENIZER, contents
from template_texts import ARGUED

from sft_shards.formats.shards import Manifest, ShardDirectory

pytestmark = pytest.mark.process

TEXTS = [("Hi", "Hello"), ("One?", "Two"), ("Say <|im_end|>", "No")]
MORE = [
    {},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"chat_template_kwargs": {"reasoning_effort": "high"}},
    {"chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low", "unknown": "x"}},
    {"documents": [{"title": "T", "text": "X"}, {"title": "U", "text": "Y <|im_end|>"}]},
    {"documents": [{"title": "T", "text": "X"}], "chat_template_kwargs": {"enable_thinking": False}},
    {"documents": None, "chat_template_kwargs": {}},
]


def conversation(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


RECORDS = [conversation(*texts) | more for texts in TEXTS for more in MORE]


@pytest.fixture
def job(preprocess, tmp_path):
    """Run a job over records and give its directory."""
    (tmp_path / "mine.jinja").write_text(ARGUED, "utf-8")

    def run(data, name, *more):
        words = ["--tokenizer", TOKENIZER, "--template", tmp_path / "mine.jinja", "--workers", 1, "--verify-every", 1]
        status, _, err = preprocess("run", data, *words, "--output", tmp_path / name, *more)
        assert status == 0, err
        return tmp_path / name

    return run


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def rows(output, split="train"):
    opened = ShardDirectory(output).split(split)
    return [opened[row][0].tolist() for row in range(len(opened))]


def oracle(record, **job):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    return tokenizer.apply_chat_template(
        record["messages"],
        chat_template=ARGUED,
        documents=record.get("documents"),
        tokenize=False,
        **(job | (record.get("chat_template_kwargs") or {})),
    )


def test_lines_and_tables_give_what_transformers_renders(job, tmp_path):
    from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

    by_lines = job(lines(tmp_path / "in.jsonl", RECORDS), "lines", "--template-arg", 'reasoning_effort="medium"')
    plain = [{**one, "chat_template_kwargs": json.dumps(one.get("chat_template_kwargs")),
              "documents": json.dumps(one.get("documents"))} for one in RECORDS]  # fmt: skip
    for name, records in (("structs", RECORDS), ("texts", plain)):
        pq.write_table(pa.Table.from_pylist([records[5], *records]).slice(1), tmp_path / f"{name}.parquet")
        table = job(tmp_path / f"{name}.parquet", name, "--template-arg", 'reasoning_effort="medium"')
        assert rows(table) == rows(by_lines)
    tokenizer = Tokenizer(str(TOKENIZER))
    split = ShardDirectory(by_lines).split("train")
    assert len(split) == len(RECORDS)
    for row, record in enumerate(RECORDS):
        assert tokenizer.decode(split[row][0]) == oracle(record, reasoning_effort="medium")
    manifest = Manifest.read(by_lines)
    assert manifest.notes.counts["typed_control_tokens"] == 7 + 2, "texts of turns, and of documents"


def test_a_record_s_arguments_act_as_those_of_the_job(job, tmp_path):
    arguments = {"enable_thinking": False, "reasoning_effort": "high"}
    bare = [conversation(*texts) for texts in TEXTS]
    own = job(lines(tmp_path / "own.jsonl", [one | {"chat_template_kwargs": arguments} for one in bare]), "own")
    words = [word for name, value in arguments.items() for word in ("--template-arg", f"{name}={json.dumps(value)}")]
    given = job(lines(tmp_path / "bare.jsonl", bare), "given", *words)
    for kind in ("tokens", "loss_mask"):
        assert contents(own / "train" / kind) == contents(given / "train" / kind)


def test_duplicates_go_by_the_text_and_splits_by_the_conversation(job, tmp_path):
    records = [
        conversation("Hi", "Hello"),
        conversation("Hi", "Hello") | {"chat_template_kwargs": {"enable_thinking": False}},
        conversation("Hi", "Hello") | {"chat_template_kwargs": {"unknown": 1}},
        conversation("Hi", "Hello") | {"chat_template_kwargs": {"enable_thinking": False, "unknown": 2}},
        conversation("Hi", "Hello") | {"chat_template_kwargs": {"enable_thinking": True}},
        conversation("Hi", "Hello") | {"documents": [{"title": "A", "text": "B"}]},
        conversation("Hi", "Hello") | {"documents": [{"title": "A", "text": "C"}]},
        conversation("Hi", "Hello") | {"documents": [{"title": "A", "text": "B", "more": "D"}]},
    ]
    output = job(lines(tmp_path / "in.jsonl", records), "out", "--dedup", "--shard-tokens", 8)
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert [(one["record"], one["reason"]) for one in rejects] == [(at, "duplicate") for at in (2, 3, 4, 7)]
    many = [conversation(f"Question {at}", "Yes") | more for at in range(30) for more in MORE[:3]]
    output = job(lines(tmp_path / "many.jsonl", many), "many", "--valid-fraction", "0.4")
    table = pq.read_table(output / "valid" / "rows" / "00000.parquet").to_pylist()
    valid = {row["record"] // 3 for row in table}
    assert len(table) == 3 * len(valid), "one conversation, with whatever arguments, is in one split"
    assert 0 < len(valid) < 30


def test_wrong_types_are_rejects_and_the_others_stay(job, tmp_path):
    records = [
        conversation("Hi", "Hello"),
        conversation("Hi", "Hello") | {"chat_template_kwargs": [1]},
        conversation("Hi", "Hello") | {"documents": "none"},
        conversation("Hi", "Hello") | {"chat_template_kwargs": {"enable_thinking": False}},
    ]
    output = job(lines(tmp_path / "in.jsonl", records), "out")
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert [(one["record"], one["reason"]) for one in rejects] == [(1, "wrong_type"), (2, "broken_json")]
    assert len(rows(output)) == 2
