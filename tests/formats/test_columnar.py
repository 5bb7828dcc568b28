"""Text-only conversations in columns: nothing is lost on the way in, by filtering, or by concatenating."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.columnar import INPUT, ConversationColumns, prefix_sums, utf8_buffers
from sft_shards.formats.conversation import Conversation

pytestmark = pytest.mark.unit

ROLES = st.sampled_from([("user", "assistant"), ("user", INPUT, "assistant"), ("system", "user", "assistant")])
TEXT = st.text("aé中👍,| ", min_size=1, max_size=4).filter(str.strip)
ONE = ROLES.flatmap(lambda roles: st.tuples(st.just(roles), st.lists(TEXT, min_size=len(roles), max_size=len(roles))))


def taken_apart(columns):
    """Roles and texts by row, one conversation at a time."""
    offsets, texts = columns.text_offsets.tolist(), columns.texts.to_pylist()
    return {
        row: (columns.layouts[number], texts[first:last])
        for row, number, first, last in zip(
            columns.rows.tolist(), columns.layout_ids, offsets, offsets[1:], strict=False
        )
    }


@given(st.dictionaries(st.integers(0, 50), ONE, max_size=6), st.data())
def test_rows_come_back_from_columns_filtered_and_concatenated(found, data):
    found = dict(sorted(found.items()))
    columns = ConversationColumns.from_rows(found)
    assert taken_apart(columns) == found
    keep = np.asarray(data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found))), dtype=bool)
    kept = columns.filter(keep)
    assert taken_apart(kept) == {row: one for (row, one), keeps in zip(found.items(), keep, strict=True) if keeps}
    cut = data.draw(st.integers(0, len(found)))
    position = np.arange(len(found))
    parts = [columns.filter(position < cut), columns.filter(position >= cut)]
    assert taken_apart(ConversationColumns.concatenate(parts)) == found


@given(st.lists(ONE, max_size=5))
def test_digests_are_those_of_the_conversations(found):
    columns = ConversationColumns.from_rows(dict(enumerate(found)))
    conversations = [Conversation.from_text_only(roles, texts) for roles, texts in found]
    assert list(columns.digests()) == [conversation.digest() for conversation in conversations]
    assert [conversation.text_only() for conversation in conversations] == found


def test_nothing_concatenated_is_nothing():
    columns = ConversationColumns.concatenate([])
    assert (len(columns.rows), len(columns.texts), columns.text_offsets.tolist()) == (0, 0, [0])


def test_prefix_sums_are_offsets_of_lengths():
    assert prefix_sums(np.array([2, 3, 1])).tolist() == [0, 2, 5, 6]
    assert prefix_sums(np.array([], dtype=bool)).tolist() == [0]


@pytest.mark.parametrize(("begin", "end"), [(0, 4), (1, 3), (2, 4), (3, 3), (0, 0)])
def test_the_buffers_of_a_slice_are_its_own_part(begin, end):
    texts = pa.array(["ab", "é", "", "中x"])[begin:end]
    values, offsets = utf8_buffers(texts)
    found = [values[first:last].tobytes().decode() for first, last in pairwise(offsets)]
    assert found == texts.to_pylist()
    assert (offsets[0], offsets[-1]) == (0, len(values))
