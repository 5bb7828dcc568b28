"""JSON texts to columns, without a record format: what is read, what is left, and how pyarrow's messages are read."""

import json

import pyarrow as pa
import pyarrow.json
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.records import JsonSchemas
from sft_shards.preprocess.sources import JsonBatch, json_columns

pytestmark = pytest.mark.unit

STRICT = pa.schema([("a", pa.string())])
SCHEMAS = JsonSchemas(strict=STRICT, tolerant=pa.schema([("a", pa.string()), ("b", pa.null())]))


def schemas_for(record):
    """Objects with a text in `a` and nothing in `b`; other fields are ignored."""
    fits = isinstance(record, dict) and isinstance(record.get("a"), str) and record.get("b") is None
    return SCHEMAS if fits else None


def read(texts):
    """The value of `a` by row, for the rows that were read; a row without one (null) is for the format to judge."""
    found = {}
    for chunk in json_columns.read_columns(JsonBatch.of_texts(0, texts), schemas_for):
        found |= dict(zip(chunk.rows, chunk.columns.column("a").to_pylist(), strict=True))
    return {row: value for row, value in found.items() if value is not None}


def expected(texts):
    """What `json` makes of each text by itself."""
    found = {}
    for row, text in enumerate(texts):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if schemas_for(value):
            found[row] = value["a"]
    return found


GOOD = [b'{"a": "x"}', b'{"a": "y", "id": 7}', b'{"a": "\\u00e9", "b": null}', b'{"id": {"z": [1]}, "a": ""}']
BAD = [
    b'{"a": 1}',
    b'{"a": "x", "b": 2}',
    b"{}",
    b"7",
    b'["x"]',
    b'{"a": tru}',
    b'{"a": "x"',
    b'{"a": "\xff"}',
    b"",
    b"{",
]


@pytest.mark.parametrize("wording", ["known", "unknown"])
@given(texts=st.lists(st.sampled_from(GOOD + BAD), max_size=30))
def test_every_text_that_fits_is_read_and_no_other(wording, texts):
    with pytest.MonkeyPatch.context() as patch:
        if wording == "unknown":
            patch.setattr(json_columns, "failed_row", lambda message: None)
        assert read(texts) == expected(texts)


@pytest.mark.parametrize("wording", ["known", "unknown"])
@pytest.mark.parametrize("bad", [[0], [1999], [3, 4, 700, 1200, 1201]])
def test_long_batches_are_read_in_few_calls_around_what_is_unsupported(monkeypatch, wording, bad):
    if wording == "unknown":
        monkeypatch.setattr(json_columns, "failed_row", lambda message: None)
    texts = [b'{"a": 1, "id": 2}' if row in bad else b'{"a": "x", "id": 2}' for row in range(2000)]
    chunks = list(json_columns.read_columns(JsonBatch.of_texts(0, texts), schemas_for))
    assert sorted(row for chunk in chunks for row in chunk.rows) == [row for row in range(2000) if row not in bad]
    assert len(chunks) <= 8 * len(bad)
    rows = [row for chunk in chunks for row in chunk.rows]
    assert rows == sorted(rows)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1}',
        b'{"a": ["x"]}',
        b'{"b": 1}',
        b'{"a": tru}',
        b'{"a": "x"',
        b'{"a": "\\ud800"}',
        b'{"a": "x", "a": "y"}',
        b"[1]",
    ],
)
def test_pyarrow_names_the_row_at_which_it_stopped_in_the_words_we_read(text):
    raw = b"\n".join([b'{"a": "x"}'] * 7 + [text] + [b'{"a": "x"}'] * 3)
    with pytest.raises(pa.ArrowInvalid) as caught:
        pa.json.read_json(
            pa.BufferReader(raw),
            pa.json.ReadOptions(use_threads=False, block_size=len(raw) + 1),
            pa.json.ParseOptions(SCHEMAS.tolerant, newlines_in_values=True, unexpected_field_behavior="ignore"),
        )
    assert json_columns.failed_row(str(caught.value)) == 7


def test_a_message_without_a_row_says_nothing():
    assert json_columns.failed_row("JSON parse error: unexpected field") is None
    assert json_columns.failed_row("") is None


def test_bare_values_are_wrapped_in_the_field_that_the_schemas_name():
    schemas = JsonSchemas(strict=STRICT, tolerant=None, value_field="a")
    texts = JsonBatch.of_texts(0, [b'"x"', b'"y"', b"1", b'"z"'])
    chunks = json_columns.read_columns(texts, lambda value: schemas if isinstance(value, str) else None)
    assert [
        (row, value) for chunk in chunks for row, value in zip(chunk.rows, chunk.columns[0].to_pylist(), strict=True)
    ] == [(0, "x"), (1, "y"), (3, "z")]
