"""What becomes of sequences that are too long."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import as_lists
from preprocess_jobs import TOKENIZER, call, error_line

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.pipeline.batch import TokenizedBatch
from sft_shards.preprocess.pipeline.truncation import BatchTruncation, Limits, ReferenceTruncation, kept_range

MASK = [0, 0, 1, 1, 0, 0, 1, 1, 1, 0]


def kept(length, how, mask=MASK):
    return range(*kept_range(np.asarray(mask, dtype=np.uint8), length, how))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("how", "length", "expected"),
    [
        ("truncate", 7, range(7)),
        ("turns", 8, range(4)),
        ("turns", 9, range(9)),
        ("tail", 5, range(5, 10)),
        ("drop", 10, range(10)),
        ("error", 10, range(10)),
        ("truncate", None, range(10)),
    ],
)
def test_kept(how, length, expected):
    assert kept(length, how) == expected


@pytest.mark.unit
@pytest.mark.parametrize(
    ("how", "length", "why"),
    [
        ("drop", 9, "overlong"),
        ("truncate", 2, "no_trained_token"),
        ("turns", 3, "no_trained_token"),
        ("tail", 1, "no_trained_token"),
    ],
)
def test_left_out(how, length, why):
    with pytest.raises(RecordError) as caught:
        kept(length, how)
    assert caught.value.reason == why


@pytest.mark.unit
def test_error_ends_the_job():
    with pytest.raises(DataError, match="10 tokens, more than --max-length 9"):
        kept(9, "error")


@pytest.mark.process
@pytest.mark.parametrize(("kind", "workers"), [("jsonl", 1), ("jsonl", 2), ("json", 1), ("parquet", 1)])
def test_the_error_names_the_file_the_record_in_it_and_the_remedy(tmp_path, kind, workers):
    """The last record of 40, in a task of its own; the tasks before it are finished, and then they are not."""
    texts = [f"{number} " + "word " * (300 if number == 39 else 20) for number in range(40)]
    records = [{"instruction": text, "output": "yes"} for text in texts]
    path, other = tmp_path / f"b.{kind}", tmp_path / "a.jsonl"
    other.write_text(json.dumps(records[0]) + "\n")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=13)
    elif kind == "json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("\n\n".join(map(json.dumps, records)))
    arguments = [other, path, "--tokenizer", TOKENIZER, "--shard-tokens", 300, "--max-length", 200]
    arguments += ["--overlong", "error", "--output", tmp_path / "out"]
    line = error_line(call("run", *arguments, "--workers", workers, status=1).stderr)
    assert re.match(f"sft-preprocess: {path}: record 39: 3[0-9][0-9] tokens, more than --max-length 200; ", line)
    assert line.endswith("raise it or choose another --overlong, and run again with --overwrite")
    assert not (tmp_path / "out" / "manifest.json").exists()
    tasks = json.loads(call("plan", *arguments, "--overwrite", "--json").stdout)["tasks"]
    assert tasks > 4
    alone = call("task", "--output", tmp_path / "out", "--index", tasks - 2, "--index", tasks - 1, status=1)
    assert error_line(alone.stderr) == line


@pytest.mark.unit
def test_a_first_token_alone_is_no_target():
    with pytest.raises(RecordError, match="no_trained_token"):
        kept(None, "drop", [1, 0, 0])


def tokenized(masks):
    lengths = list(map(len, masks))
    flat = np.asarray([one for mask in masks for one in mask], dtype=np.uint8)
    return TokenizedBatch(
        records=np.arange(len(masks)) + 4,
        ids=np.arange(len(flat), dtype=np.int32),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        loss_mask=flat,
        trained=np.asarray(list(map(sum, masks)), dtype=np.int64),
        straddling=np.arange(len(masks)) % 2,
        digests=np.random.default_rng(0).integers(0, 256, (len(masks), 16), dtype=np.uint8),
        notes=dict.fromkeys(range(4, 4 + len(masks), 3), ("tools_ignored",)),
    )


@pytest.mark.unit
@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), max_size=6),
    st.sampled_from([None, 2, 4, 7]),
    st.sampled_from(["drop", "truncate", "turns", "tail"]),
    st.booleans(),
)
def test_both_implementations_keep_the_same(masks, length, how, with_digests):
    limits = Limits(max_length=length, overlong=how, valid_fraction=0.2, test_fraction=0.3, with_digests=with_digests)
    reference = ReferenceTruncation(limits)
    batch = BatchTruncation(limits, reference)
    got, expected = batch.truncate(tokenized(masks)), reference.truncate(tokenized(masks))
    assert as_lists(got) == as_lists(expected)
    assert sorted([*got.records.tolist(), *(one.record for one in got.rejects)]) == list(range(4, 4 + len(masks)))


@pytest.mark.unit
def test_the_error_of_a_batch_names_the_record():
    limits = Limits(max_length=2, overlong="error", valid_fraction=0, test_fraction=0, with_digests=False)
    with pytest.raises(DataError, match="record 5: 3 tokens, more than --max-length 2"):
        BatchTruncation(limits, ReferenceTruncation(limits)).truncate(tokenized([[0, 1], [0, 0, 1]]))


@pytest.mark.unit
def test_a_split_follows_from_the_content_alone():
    limits = Limits(max_length=None, overlong="drop", valid_fraction=0.2, test_fraction=0.3, with_digests=True)
    whole = ReferenceTruncation(limits).truncate(tokenized([[0, 1]] * 200))
    shares = np.bincount(whole.splits, minlength=3) / 200
    assert abs(shares - [0.5, 0.2, 0.3]).max() < 0.1
    alone = BatchTruncation(limits, ReferenceTruncation(limits)).truncate(
        tokenized([[0, 1]] * 200).select(np.arange(7, 9))
    )
    assert alone.splits.tolist() == whole.splits[7:9].tolist()
