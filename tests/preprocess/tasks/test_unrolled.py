"""Jobs with --rewritten-turns unroll: killed, shared, extended and merged, with splits and duplicates."""

import json
import multiprocessing
import random
import re
import shutil
import signal
from collections import Counter
from dataclasses import replace

import pyarrow.parquet
import pytest
from doomed import kill_at
from preprocess_jobs import TOKENIZER, call, contents
from rewriting_templates import REWRITES

from sft_shards.formats.reasons import NOTES
from sft_shards.formats.shards import Manifest
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.directories.compare import compare
from sft_shards.preprocess.directories.merge import merge
from sft_shards.preprocess.directories.verify import verify
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.process
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["sft_shards.preprocess.engines.forkserver_preload", "sft_shards.preprocess.job"])


def record(number):
    messages = []
    for turn in range(1 + number % 4):
        answer = {"role": "assistant", "content": f"answer {number}.{turn}"}
        if number % 3:
            answer["reasoning_content"] = f"thinking of {number}.{turn}"
        messages += [{"role": "user", "content": f"question {number}.{turn}"}, answer]
    return {"messages": messages}


RECORDS = [*map(record, range(40)), record(5), {"messages": []}, record(7), *map(record, range(40, 50))]


def write(path, records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")


def config(folder, name="data.jsonl", **options):
    values = {"valid_fraction": 0.2, "dedup": True, "shard_tokens": 800, "rewritten_turns": "unroll"} | options
    template = str(folder / "template.jinja")
    return JobConfig(inputs=(str(folder / name),), tokenizer=str(TOKENIZER), template=template, **values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unrolled")
    (folder / "template.jinja").write_text(REWRITES["as Qwen3"], "utf-8")
    write(folder / "data.jsonl", RECORDS)
    return folder


@pytest.fixture(scope="module")
def made(folder):
    return run(config(folder), folder / "out", workers=1)


def rows(output):
    return [
        {"split": path.parts[-3], **row}
        for path in sorted(output.glob("*/rows/*.parquet"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]


def test_every_turn_of_every_record_has_one_sequence(folder, made):
    found = rows(folder / "out")
    turns = Counter((row["record"], turn) for row in found for turn in row["turns"])
    left_out = (40, 41, 42)
    expected = {
        (number, turn)
        for number, one in enumerate(RECORDS)
        if number not in left_out
        for turn in range(1, len(one["messages"]), 2)
    }
    assert turns == Counter(expected)
    assert len({(row["record"], row["split"]) for row in found}) == len(RECORDS) - len(left_out), "one split a record"
    assert {row["split"] for row in found} == {"train", "valid"}
    assert made.counts.rejected == {"duplicate": 2, "no_assistant_turn": 1}
    assert made.counts.written == len(RECORDS) - len(left_out)
    last = {row["record"]: row["tokens"] for row in found}
    assert made.notes.counts["unrolled_sequences"] == len(found) - len(last)
    assert made.notes.counts["unrolled_tokens"] == sum(row["tokens"] for row in found) - sum(last.values())
    assert made.config["rewritten_turns"] == "unroll"
    assert verify(folder / "out") == []


def job(folder, output, step, before):
    kill_at(step, ("rename", "replace", "unlink"), before=before)
    run(config(folder), output, workers=1)


def test_killed_and_resumed_and_with_two_workers_it_is_the_same(folder, made, tmp_path):
    expected = contents(folder / "out")
    dice = random.Random(3)
    killed = 0
    for number in range(4):
        output = tmp_path / f"out{number}"
        process = server.Process(target=job, args=(folder, output, dice.randint(1, 90), dice.random() < 0.5))
        process.start()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        run(config(folder), output, workers=1 + number % 2)
        assert contents(output) == expected
    assert killed


def test_extended_it_takes_over_what_is_the_same(folder, tmp_path):
    write(folder / "grown.jsonl", RECORDS)
    run(config(folder, "grown.jsonl", dedup=False), tmp_path / "old", workers=1)
    write(folder / "grown.jsonl", [*RECORDS, *map(record, range(60, 70))])
    grown = config(folder, "grown.jsonl", dedup=False)
    options = ["--tokenizer", TOKENIZER, "--template", folder / "template.jinja", "--valid-fraction", 0.2]
    options += ["--shard-tokens", 800, "--rewritten-turns", "unroll", "--extend", tmp_path / "old"]
    call("run", folder / "grown.jsonl", *options, "--output", tmp_path / "extended")
    run(grown, tmp_path / "new", workers=1)
    assert contents(tmp_path / "extended") == contents(tmp_path / "new")
    assert verify(tmp_path / "extended") == []


def test_merged_with_a_directory_that_is_not_unrolled(folder, made, tmp_path):
    write(folder / "more.jsonl", map(record, range(80, 90)))
    run(config(folder, "more.jsonl", rewritten_turns="auto"), tmp_path / "auto", workers=1)
    shutil.copytree(folder / "out", tmp_path / "unrolled")
    merged = merge([tmp_path / "auto", tmp_path / "unrolled"], tmp_path / "merged")
    assert merged.counts.written == made.counts.written + 10
    assert verify(tmp_path / "merged") == []
    assert sum("turns" in row for row in rows(tmp_path / "merged")) == len(rows(folder / "out"))
    assert any("rewritten_turns" in line for line in compare(tmp_path / "auto", tmp_path / "unrolled"))


def test_what_is_wrong_with_rows_is_found(folder, made, tmp_path):
    """A manifest that counts a record too many, as nothing but the rows can tell."""
    shutil.copytree(folder / "out", tmp_path / "out")
    counts = replace(made.counts, read=made.counts.read + 1, written=made.counts.written + 1)
    sources = tuple(replace(one, records=one.records + 1, parts=()) for one in made.sources)
    replace(made, counts=counts, sources=sources).write(tmp_path / "out")
    (found,) = verify(tmp_path / "out")
    assert "51 records written, the rows name 50" in found


def test_the_summary_and_the_announcement_name_the_cost(folder, made, tmp_path):
    options = ["--tokenizer", TOKENIZER, "--template", folder / "template.jinja", "--rewritten-turns", "unroll"]
    done = call("run", folder / "data.jsonl", *options, "--output", tmp_path / "out")
    notes = Manifest.read(tmp_path / "out").notes.counts
    for name in ("unrolled_sequences", "unrolled_tokens"):
        assert f"noted: {notes[name]:,} {NOTES[name]}\n" in done.stdout
    assert "more tokens, estimated from 53 records at 1 place of the input" in done.stderr
    shown = call("inspect", tmp_path / "out", "--row", 1).stdout
    assert "carry loss, of turn 1\n" in shown
    as_json = json.loads(call("inspect", tmp_path / "out", "--row", 1, "--json").stdout)
    assert as_json["turns"] == [1]


def test_one_long_conversation_at_the_beginning_does_not_decide_what_is_announced(folder, tmp_path):
    round_ = [{"role": role, "content": "word " * 20} for role in ("user", "assistant")]
    write(folder / "long.jsonl", [{"messages": round_ * 80}, *({"messages": round_} for _ in range(300))])
    options = ["--tokenizer", TOKENIZER, "--template", folder / "template.jinja", "--rewritten-turns", "unroll"]
    done = call("run", folder / "long.jsonl", *options, "--shard-tokens", 5000, "--output", tmp_path / "out")
    notes = Manifest.read(tmp_path / "out").notes.counts
    tokens = sum(row["tokens"] for row in rows(tmp_path / "out")) - notes["unrolled_tokens"]
    announced = int(re.search(r"about ([\d,]+)% more tokens", done.stderr)[1].replace(",", "")) / 100
    assert announced == pytest.approx(notes["unrolled_tokens"] / tokens, rel=0.5)
