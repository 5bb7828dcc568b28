"""Arrow arrays made without `pa.array` are those that `pa.array` makes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.arrow_arrays import bool_array, bools_of, number_array, numbers_of, string_array

pytestmark = pytest.mark.unit
NUMBERS = st.lists(st.integers(-100, 100))
DTYPES = st.sampled_from(["int8", "int32", "int64"])


@given(st.lists(st.text()))
def test_texts(texts: list[str]) -> None:
    found = string_array(texts)
    found.validate(full=True)
    assert found.equals(pa.array(texts, pa.string()))


@given(NUMBERS, DTYPES)
def test_numbers(values: list[int], dtype: str) -> None:
    array = np.array(values, dtype=dtype)
    assert number_array(array[::2]).equals(pa.array(array[::2]))
    assert number_array(array).type == pa.array(array).type


@given(st.lists(st.booleans()), st.integers(0, 9))
def test_booleans_and_slices_of_them(values: list[bool], first: int) -> None:
    mask = np.array(values, dtype=bool)
    found = bool_array(mask)
    assert found.equals(pa.array(mask))
    assert bools_of(found.slice(first)).tolist() == values[first:]


@given(st.lists(st.none() | st.integers(-100, 100)), DTYPES, st.integers(0, 9))
def test_numbers_of_slices_with_nulls(values: list[int | None], dtype: str, first: int) -> None:
    array = pa.array(values, getattr(pa, dtype)()).slice(first)
    found = numbers_of(array, null=7)
    assert found.tolist() == [7 if value is None else value for value in values[first:]]
    assert found.dtype == dtype
    assert numbers_of(pa.chunked_array([array, array]), null=7).tolist() == 2 * found.tolist()


def test_what_cannot_be_an_arrow_text_or_has_no_number() -> None:
    with pytest.raises(UnicodeEncodeError):
        string_array(["fine", "\ud800"])
    with pytest.raises(AssertionError):
        numbers_of(pa.array([1, None]))
