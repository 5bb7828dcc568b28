"""White space is found, and taken off texts in UTF-8, where `str` would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.preprocess.pipeline.whitespace import (
    WHITE_SPACE,
    may_begin_with_space,
    may_end_with_space,
    stripped,
)

pytestmark = pytest.mark.unit

NEAR = "a\x00\x1b!。、\u200b\u2060\u3001\u1681\u2030é\u00a1😀"
"""No white space, though the bytes are close to some."""
TEXTS = st.text(st.sampled_from(WHITE_SPACE + NEAR), max_size=6)


@given(TEXTS, st.booleans(), st.booleans())
def test_stripped(text, left, right):
    expected = text.lstrip() if left else text
    expected = expected.rstrip() if right else expected
    assert stripped(text.encode(), left=left, right=right).decode() == expected


def test_every_character():
    for point in range(0x11000):
        character = chr(point)
        if not 0xD800 <= point < 0xE000:
            text = f"{character}x{character}"
            assert stripped(text.encode(), left=True, right=True).decode() == text.strip()


def test_punctuation_that_shares_two_bytes_with_white_space():
    values, offsets = np.frombuffer("「好。".encode(), dtype=np.uint8), np.asarray([0, 9], dtype=np.int32)
    assert not may_begin_with_space(values, offsets).any()
    assert not may_end_with_space(values, offsets).any()


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=5))
def test_no_text_with_space_is_overlooked(texts):
    encoded = [text.encode() for text in texts]
    values = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    assert all(may_begin_with_space(values, offsets) | [text == text.lstrip() for text in texts])
    assert all(may_end_with_space(values, offsets) | [text == text.rstrip() for text in texts])
