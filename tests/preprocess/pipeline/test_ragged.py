"""Ragged arrays against lists of lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.preprocess.pipeline.ragged import concatenate_offsets, row_numbers, take_lengths, take_rows

pytestmark = pytest.mark.unit
ROWS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=8)


def ragged(rows):
    values = np.asarray([value for row in rows for value in row], dtype=np.int64)
    return values, np.cumsum([0, *map(len, rows)], dtype=np.int64)


@given(ROWS, st.data())
def test_taking_rows_is_indexing_a_list_of_lists(rows, data):
    values, offsets = ragged(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([]))
    expected, expected_offsets = ragged([rows[row] for row in chosen])
    picked = np.asarray(chosen, dtype=np.int64)
    assert take_rows(values, offsets, picked).tolist() == expected.tolist()
    assert take_lengths(offsets, picked).tolist() == expected_offsets.tolist()


@given(ROWS, ROWS)
def test_offsets_of_arrays_put_together(one, other):
    parts = [ragged(one)[1], ragged(other)[1]]
    assert concatenate_offsets(parts).tolist() == ragged(one + other)[1].tolist()


@given(ROWS)
def test_row_numbers_name_the_row_of_each_value(rows):
    assert row_numbers(ragged(rows)[1]).tolist() == [number for number, row in enumerate(rows) for _ in row]
