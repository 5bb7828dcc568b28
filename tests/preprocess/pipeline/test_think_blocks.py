"""Think blocks of a batch are taken apart as those of one conversation are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.layouts import take_thoughts_apart
from sft_shards.preprocess.pipeline import think_blocks
from sft_shards.preprocess.pipeline.think_blocks import take_think_blocks_apart

pytestmark = pytest.mark.unit
SPACES = st.sampled_from(["", "", "\n", "\n\n", " ", "\u3000", "\xa0\n", "\x85", "\x1c", " " * 70])
WORDS = st.sampled_from(["", "hm", "so é", "日本", "a\u2028b", "think>", "<think>", "</think>", "x>", "th", "<think"])
BLOCK = st.tuples(SPACES, st.sampled_from(["", "<think>"]), SPACES, WORDS, SPACES, st.just("</think>"), SPACES, WORDS)
TEXT = st.one_of(BLOCK.map("".join), st.lists(st.one_of(SPACES, WORDS), max_size=6).map("".join)).map(
    lambda text: text if text.strip() else "w"
)
LABELS = st.sampled_from(["user", "assistant", "reasoning", "tool", "assistant=null", "name"])


@st.composite
def rows(draw):
    found, row = {}, 0
    for layout in draw(st.lists(st.lists(LABELS, min_size=1, max_size=5), max_size=6)):
        row += draw(st.integers(1, 3))
        found[row] = (tuple(layout), [draw(TEXT) for label in layout if "=" not in label])
    return found


def unpacked(columns):
    texts, bounds = columns.texts.to_pylist(), columns.text_offsets.tolist()
    layouts = [columns.layouts[number] for number in columns.layout_ids.tolist()]
    spans = zip(columns.rows.tolist(), layouts, bounds, bounds[1:], strict=False)
    return {row: (layout, texts[first:last]) for row, layout, first, last in spans}


def expected(found):
    return {row: take_thoughts_apart(layout, texts) or (layout, texts) for row, (layout, texts) in found.items()}


@settings(max_examples=300)
@given(rows())
def test_a_batch_is_taken_apart_as_each_conversation(found):
    assert unpacked(take_think_blocks_apart(ConversationColumns.from_rows(found))) == expected(found)


def test_ordinary_blocks_are_taken_apart_together(monkeypatch):
    monkeypatch.setattr(think_blocks, "take_thoughts_apart", None)
    columns = ConversationColumns.from_rows(
        {
            3: (("user", "assistant"), ["hi", "<think>\nhm\n</think>\n\nyes "]),
            5: (("user",), ["think of it>"]),
            6: (("user", "assistant", "user", "assistant"), ["a", "<think>\n\n</think>b", "c", " é</think> 日"]),
        }
    )
    assert unpacked(take_think_blocks_apart(columns)) == {
        3: (("user", "assistant+<think>\n", "+\n</think>\n\n"), ["hi", "hm", "yes "]),
        5: (("user",), ["think of it>"]),
        6: (
            ("user", "assistant+<think>\n\n</think>", "user", "assistant+ ", "+</think> "),
            ["a", "b", "c", "é", "日"],
        ),
    }


def test_a_layout_that_becomes_too_long_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("sft_shards.formats.layouts.MOST_LABELS", 2)
    monkeypatch.setattr(think_blocks, "MOST_LABELS", 2)
    found = {0: (("user", "assistant"), ["hi", "a</think>b"]), 1: (("assistant",), ["a</think>b"])}
    assert unpacked(take_think_blocks_apart(ConversationColumns.from_rows(found))) == {
        0: found[0],
        1: (("assistant", "+</think>"), ["a", "b"]),
    }


def test_a_tag_that_two_texts_make_together_is_none():
    found = {0: (("assistant", "assistant"), ["a</thi", "nk>b"])}
    columns = take_think_blocks_apart(ConversationColumns.from_rows(found))
    assert unpacked(columns) == found
    assert columns.rows.dtype == np.int64
