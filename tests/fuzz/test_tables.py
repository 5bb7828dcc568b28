"""Damaged files of every kind that is read: records or rejects, or one error line with the name of the file."""

import json
from pathlib import Path

import pytest
from fuzzing import corpus, fuzz
from hostile_inputs import TABLES
from hypothesis import strategies as st
from mutations import PLACE, change

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.preprocess.sources import PartReader, cut, find_sources, sample

pytestmark = pytest.mark.unit

SMALL = [
    name
    for name in TABLES
    if name.split(" ")[0] in ("pairs.parquet", "talks.parquet", "rows.csv", "lines.jsonl", "array.json")
]
STEPS = st.lists(st.tuples(st.sampled_from(["byte", "byte", "cut", "append"]), PLACE, PLACE), min_size=0, max_size=4)
INPUTS = st.tuples(st.sampled_from(SMALL), STEPS).map(lambda one: json.dumps(one).encode())


@pytest.fixture
def check(tmp_path):
    def check(data: bytes) -> None:
        name, steps = json.loads(data)
        path = tmp_path / name.replace(" ", "-")
        path.write_bytes(TABLES[name]())
        for kind, place, value in steps:
            change(kind, path, path, place, value)
        try:
            for source in find_sources([str(path)]):
                sample(source, 5)
                for part in cut(source, 1 << 10):
                    for batch in PartReader(source, part).batches():
                        for _, value in batch:
                            assert isinstance(value, (dict, list, str, int, float, type(None), RecordError))
        except (DataError, UsageError) as error:
            assert str(path) in str(error), error
            assert "\n" not in str(error), error

    return check


@pytest.mark.parametrize("name", TABLES)
def test_hostile_files(check, name: str) -> None:
    check(json.dumps([name, []]).encode())


@pytest.mark.parametrize("path", corpus("tables"), ids=lambda path: path.name)
def test_kept_inputs(check, path: Path) -> None:
    check(path.read_bytes())


def test_new_inputs(check) -> None:
    assert fuzz("tables", check, INPUTS)
