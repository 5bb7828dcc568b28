"""Columns of structs and lists as JSON: the same as `json` writes for each value."""

import datetime
import decimal
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.records.json_of_columns import json_column

pytestmark = pytest.mark.unit

WORDS = st.text(st.sampled_from('ab"\\\n\0é中👍\x7f'), max_size=4)
COLUMNS = st.sampled_from([WORDS, st.booleans(), st.integers(-5, 2**40), st.floats(), st.none()])
for _ in range(3):
    COLUMNS = (
        COLUMNS
        | COLUMNS.map(lambda values: st.lists(values | st.none(), max_size=3))
        | st.lists(COLUMNS, max_size=3).map(
            lambda own: st.fixed_dictionaries({f'é"{number}': one | st.none() for number, one in enumerate(own)})
        )
    )


@given(COLUMNS.flatmap(lambda values: st.lists(values | st.none(), min_size=1, max_size=5)), st.integers(0, 2))
def test_values_become_the_json_of_what_python_has_for_them(values, begin):
    column = pa.array(values)[begin:]
    found = json_column(column)
    if pa.types.is_string(column.type):
        assert found is column
    elif pa.types.is_nested(column.type):
        expected = [None if one is None else json.dumps(one, ensure_ascii=False) for one in column.to_pylist()]
        assert found.to_pylist() == expected
    else:
        assert found is None


@pytest.mark.parametrize(
    "values", [[[datetime.date(2024, 1, 1)]], [{"a": decimal.Decimal(1)}], [{"a": [b"x"]}], [1, 2], [1.5], [True]]
)
def test_what_json_has_no_type_for_is_not_told(values):
    assert json_column(pa.array(values)) is None


def test_texts_of_any_type_and_long_lists_are_told():
    words = pa.array(["a", None, "b"], pa.large_string())
    assert json_column(words).to_pylist() == ["a", None, "b"]
    structs = pa.StructArray.from_arrays([words.dictionary_encode(), pa.nulls(3)], ["x", "y"])
    lists = pa.LargeListArray.from_arrays([0, 2, 3], structs)
    texts = ['[{"x": "a", "y": null}, {"x": null, "y": null}]', '[{"x": "b", "y": null}]']
    assert json_column(lists).to_pylist() == texts
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    assert json_column(twice) is None
