"""What becomes of sequences that are too long."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_jobs import TOKENIZER, call, error_line

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.preprocess.pipeline.reference import Encoded
from sft_shards.preprocess.pipeline.truncation import fit

MASK = [0, 0, 1, 1, 0, 0, 1, 1, 1, 0]


def sequence(mask=MASK):
    return Encoded(ids=np.arange(len(mask), dtype=np.int32), loss_mask=np.asarray(mask, dtype=np.uint8), straddling=0)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("how", "length", "kept"),
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
def test_kept(how, length, kept):
    fitted, cut = fit(sequence(), length, how)
    assert fitted.ids.tolist() == list(kept)
    assert fitted.loss_mask.tolist() == [MASK[place] for place in kept]
    assert cut == (len(kept) < 10)


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
        fit(sequence(), length, how)
    assert caught.value.reason == why


@pytest.mark.unit
def test_error_ends_the_job():
    with pytest.raises(DataError, match="10 tokens, more than --max-length 9"):
        fit(sequence(), 9, "error")


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
        fit(sequence([1, 0, 0]), None, "drop")
