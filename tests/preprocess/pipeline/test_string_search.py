"""Strings are found wherever a look at each place finds them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.preprocess.pipeline.string_search import StringSearch

pytestmark = pytest.mark.unit

STRINGS = st.text("<ab|ï", min_size=1, max_size=6)


@given(st.sets(STRINGS, min_size=1, max_size=5), st.text("<ab|ï", max_size=40))
def test_all_places(strings, text):
    raw = text.encode()
    expected = []
    for place in range(len(raw)):
        there = [one for one in (string.encode() for string in strings) if raw.startswith(one, place)]
        expected += [(place, max(there, key=len))] if there else []
    assert list(StringSearch(strings).find(np.frombuffer(raw, dtype=np.uint8))) == expected
