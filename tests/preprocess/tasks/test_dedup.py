"""Equal conversations: the first stays, the others are rejects, in whatever file, task or spelling they stand."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sft_shards.formats.shards import ShardDirectory
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.job import Job, finalize_only, run_tasks
from sft_shards.preprocess.tasks.digests import NAME
from sft_shards.preprocess.tasks.workdir import task_folder

pytestmark = pytest.mark.unit


def messages(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def inputs(tmp_path):
    one = [messages(f"q{number % 7}", f"a{number % 7}") for number in range(20)]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(record) + "\n" for record in one) + "broken\n", "utf-8")
    two = [{"instruction": f"q{number}", "output": f"a{number}"} for number in range(10)]
    (tmp_path / "two.json").write_text(json.dumps(two), "utf-8")
    return [tmp_path / "one.jsonl", tmp_path / "two.json"]


def texts(directory: Path) -> list[list[int]]:
    shards = ShardDirectory(directory)
    return [
        shards.split(name)[row][0].tolist() for name in shards.manifest.splits for row in range(len(shards.split(name)))
    ]


@pytest.mark.parametrize("shard_tokens", [40, 1 << 24])
@pytest.mark.parametrize("shares", [(), ("--valid-fraction", "0.4")])
def test_the_first_stays(preprocess, inputs, bpe_folder, tmp_path, shard_tokens, shares):
    out = tmp_path / "out"
    arguments = ("run", *inputs, "--tokenizer", bpe_folder, "--shard-tokens", shard_tokens, *shares)
    assert preprocess(*arguments, "--output", out, "--dedup")[0] == 0
    assert preprocess("verify", out)[0] == 0
    found = texts(out)
    assert len(found) == len({tuple(ids) for ids in found}) == 10
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert [(Path(one["source"]).name, one["record"], one["reason"]) for one in rejects] == [
        *(("one.jsonl", number, "duplicate") for number in range(7, 20)),
        ("one.jsonl", 20, "broken_json"),
        *(("two.json", number, "duplicate") for number in range(7)),
    ]
    manifest = ShardDirectory(out).manifest
    assert (manifest.counts.read, manifest.counts.written) == (31, 10)
    rows = [row for path in sorted(out.glob("*/rows/*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert sorted((Path(row["source"]).name, row["record"]) for row in rows) == [
        *(("one.jsonl", number) for number in range(7)),
        *(("two.json", number) for number in range(7, 10)),
    ]
    assert preprocess(*arguments, "--output", tmp_path / "all")[0] == 0
    assert len(texts(tmp_path / "all")) == 30


def test_stopped_in_the_middle_it_goes_on(inputs, bpe_folder, tmp_path, monkeypatch):
    config = JobConfig(inputs=tuple(map(str, inputs)), tokenizer=str(bpe_folder), dedup=True, shard_tokens=40)

    def job(out, fail_at=None):
        plan = Job(config=config, output=out).plan()
        run_tasks(out, lambda plan: [task.number for task in plan.tasks])
        from sft_shards.preprocess.tasks import dedup

        rename, calls = dedup.os.rename, []

        def failing(*paths):
            calls.append(paths)
            if len(calls) == fail_at:
                raise KeyboardInterrupt
            rename(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(dedup.os, "rename", failing)
            if fail_at:
                with pytest.raises(KeyboardInterrupt):
                    finalize_only(out)
        run_tasks(out, lambda plan: [task.number for task in plan.tasks])
        finalize_only(out)
        return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}, plan

    expected, plan = job(tmp_path / "straight")
    assert len(plan.tasks) > 4
    for fail_at in (1, 2, 3, 4):
        assert job(tmp_path / f"stopped{fail_at}", fail_at)[0] == expected


def test_digests_are_not_published(preprocess, inputs, bpe_folder, tmp_path):
    assert preprocess("run", *inputs, "--tokenizer", bpe_folder, "--output", tmp_path / "out", "--dedup")[0] == 0
    assert not list((tmp_path / "out").rglob(NAME))
    assert not task_folder(tmp_path / "out", 0).exists()


def test_the_job_says_what_it_found_and_shows_a_record(preprocess, inputs, bpe_folder, tmp_path):
    _, _, err = preprocess("run", *inputs, "--tokenizer", bpe_folder, "--output", tmp_path / "out")
    assert f"{inputs[0]}: openai (jsonl)" in err
    assert "ids by hf" in err
    assert "⟦a0<|im_end|>⟧" in err
    assert np.count_nonzero(["⟦" in line for line in err.splitlines()]) == 1
