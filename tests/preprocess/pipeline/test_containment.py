"""Whatever a record raises costs that record, in both pipelines; what is not its fault passes."""

import json
import re

import pyarrow as pa
import pytest
from pipelines import as_json, as_lists, make_pipeline, messages

from sft_shards.formats.errors import DataError, RecordError
from sft_shards.formats.records.openai import OpenAI
from sft_shards.preprocess.pipeline.containment import contain, internal_error
from sft_shards.preprocess.sources import RawBatch, TableBatch

pytestmark = pytest.mark.unit

BAD = "\N{BOMB}"


class PanicException(BaseException):
    pass


@pytest.fixture
def raising(monkeypatch):
    """Have the reading of a record that holds `BAD` raise something."""
    read = OpenAI.read

    def install(error):
        def other(self, record, fields):
            if BAD in json.dumps(record, ensure_ascii=False):
                raise error
            return read(self, record, fields)

        monkeypatch.setattr(OpenAI, "read", other)

    return install


def records():
    """Thirty text-only records, of which two raise where they are read one by one."""
    all_ = [messages(f"Question {number}", f"Answer {number}") for number in range(30)]
    for number in (0, 17):
        all_[number] = {**messages("Why?", BAD), "functions": [{"name": "f"}]}
    return all_


def batches():
    rows = records()
    table = pa.RecordBatch.from_pylist([{"functions": None, **row} for row in rows])
    return {"json": as_json(rows, 100), "table": TableBatch(100, table), "values": RawBatch(100, rows)}


@pytest.mark.parametrize("kind", ["json", "table", "values"])
@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), ZeroDivisionError(), PanicException("oh")])
@pytest.mark.parametrize("reference", [False, True])
def test_a_record_that_raises_is_left_out_and_the_others_stay(bpe_folder, raising, kind, error, reference):
    pipeline = make_pipeline(bpe_folder)
    pipeline = pipeline.reference if reference else pipeline
    expected = pipeline.batch(as_json([row for at, row in enumerate(records()) if at not in (0, 17)]), "openai")
    raising(error)
    batch = pipeline.batch(batches()[kind], "openai")
    assert [(one.record, one.reason) for one in batch.rejects] == [(100, "internal_error"), (117, "internal_error")]
    assert batch.records.tolist() == [number + 100 for number in range(30) if number not in (0, 17)]
    ours, theirs = as_lists(batch), as_lists(expected)
    assert all(ours[name] == theirs[name] for name in ("ids", "loss_mask", "lengths", "trained"))
    detail = rf"{type(error).__name__} at [\w/.]+\.py:\d+ \[[0-9a-f]{{8}}\]"
    assert {bool(re.fullmatch(detail, one.detail)) for one in batch.rejects} == {True}
    assert len({one.detail for one in batch.rejects}) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError(), DataError("d"), OSError("o")])
def test_what_is_no_fault_of_a_record_passes(bpe_folder, raising, error):
    pipeline = make_pipeline(bpe_folder)
    raising(error)
    with pytest.raises(type(error)):
        pipeline.batch(as_json(records()), "openai")


def test_a_batch_that_raises_as_a_whole_gives_what_its_records_give(bpe_folder):
    pipeline = make_pipeline(bpe_folder)
    rows = as_json([messages("a", "b"), messages("c", "d"), messages("e", "f")])

    def make(raw):
        if len(raw) > 1:
            raise ArithmeticError
        return pipeline.batch(raw, "openai")

    assert as_lists(contain(rows, make)) == as_lists(pipeline.batch(rows, "openai"))


def test_a_recursion_is_found_at_one_place_however_deep_the_stack_was():
    def endless(number):
        return other(number + 1)

    def other(number):
        return endless(number + 1)

    def below(depth):
        return below(depth - 1) if depth else caught()

    def caught():
        try:
            endless(0)
        except RecursionError as error:
            return str(internal_error(error))
        raise AssertionError

    assert len({below(depth) for depth in (0, 1, 2, 3, 50)}) == 1


def test_the_words_of_an_error_are_not_repeated():
    """They may hold an address, which differs from run to run."""
    try:
        raise ValueError(object())
    except ValueError as error:
        assert "0x" not in str(internal_error(error))
        assert isinstance(internal_error(error), RecordError)
