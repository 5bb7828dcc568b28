"""Loss masks: against a brute-force loop, and the two ways of making them against each other."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pipelines import CHARACTERS, rendered_from, without_reserved

from sft_shards.preprocess.pipeline.masks import LocatedTokens, mask_from_offsets, masks_from_bytes
from sft_shards.preprocess.pipeline.tokenize import locate
from sft_shards.preprocess.tokenizer.backends import HuggingFace
from sft_shards.preprocess.tokenizer.byte_lengths import byte_lengths
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit
SPANS = (
    st.lists(st.integers(0, 40), max_size=8, unique=True)
    .map(sorted)
    .map(lambda c: list(zip(c[::2], c[1::2], strict=False)))
)


@given(st.lists(st.integers(0, 4), max_size=25), SPANS, st.booleans())
def test_a_mask_from_offsets_is_what_a_loop_over_characters_gives(widths, spans, train_straddling):
    ends = np.cumsum([0, *widths])
    offsets = np.stack([ends[:-1], ends[1:]], axis=1).astype(np.int64)
    expected, straddling = [], 0
    for start, end in offsets.tolist():
        if start == end:
            hit = any(low <= start < high for low, high in spans)
            straddles = False
        else:
            hit = any(low <= place < high for low, high in spans for place in range(start, end))
            first = next(((low, high) for low, high in spans if high > start), None)
            straddles = first is not None and start < first[0] < end
        straddling += straddles
        expected.append(int(hit and (train_straddling or not straddles)))
    mask, count = mask_from_offsets(offsets, spans, train_straddling=train_straddling)
    assert mask.tolist() == expected
    assert count == straddling


def spans_of(cuts, touching):
    """Spans between cuts: every other one, or all of them, which touch."""
    return list(itertools.pairwise(cuts)) if touching else list(zip(cuts[::2], cuts[1::2], strict=False))


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_masks_from_bytes_are_masks_from_offsets(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    table = byte_lengths(tokenizer)
    backend = HuggingFace(tokenizer)

    @settings(max_examples=120)
    @given(
        st.lists(
            st.tuples(
                st.text(CHARACTERS | st.characters(exclude_categories=["Cs", "Cn"]), min_size=1, max_size=30),
                st.lists(st.integers(0, 30), max_size=6, unique=True).map(sorted),
            ),
            min_size=1,
            max_size=4,
        ),
        st.booleans(),
        st.booleans(),
    )
    @example([("0oul", [0, 2, 3, 4])], True, False)
    @example([("0oul", [0, 2, 3, 4])], False, False)
    @example([("0oul", [0, 2, 3, 4])], False, True)
    def same(drawn, train_straddling, touching):
        drawn = [(without_reserved(text) or "a", cuts) for text, cuts in drawn]
        spans = [spans_of([cut for cut in cuts if cut <= len(text)], touching) for text, cuts in drawn]
        expected = []
        for (text, _), own in zip(drawn, spans, strict=True):
            encoding = tokenizer.backend.encode(text, add_special_tokens=False)
            offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            expected.append(mask_from_offsets(offsets, own, train_straddling=train_straddling))
        rendered = rendered_from([text for text, _ in drawn], spans)
        tokens = locate(backend.encode(rendered.texts), rendered, table)
        got = masks_from_bytes(tokens, rendered.spans, rendered.span_owners, train_straddling=train_straddling)
        for number, (mask, straddling) in enumerate(expected):
            if tokens.matches[number]:
                start, end = tokens.offsets[number : number + 2]
                assert got.loss_mask[start:end].tolist() == mask.tolist()
                assert got.straddling[number] == straddling
                assert got.trained[number] == mask.sum()

    same()


@pytest.mark.parametrize(("train_straddling", "mask"), [(True, [0, 1, 1]), (False, [0, 0, 1])])
def test_the_worked_example(train_straddling, mask):
    tokens = LocatedTokens(
        ids=np.arange(3, dtype=np.int32),
        offsets=np.asarray([0, 3]),
        positions=np.asarray([0, 2, 6, 9], dtype=np.uint32),
        matches=np.ones(1, dtype=bool),
    )
    got = masks_from_bytes(tokens, np.asarray([[4, 9]]), np.asarray([0]), train_straddling=train_straddling)
    assert got.loss_mask.tolist() == mask
    assert (got.trained.tolist(), got.straddling.tolist()) == ([sum(mask)], [1])
    offsets = np.asarray([[0, 2], [2, 6], [6, 9]])
    expected, count = mask_from_offsets(offsets, [(4, 9)], train_straddling=train_straddling)
    assert (expected.tolist(), count) == (mask, 1)


def test_texts_without_any_token_have_no_mask():
    tokens = LocatedTokens(
        ids=np.zeros(0, dtype=np.int32),
        offsets=np.zeros(3, dtype=np.int64),
        positions=np.zeros(1, dtype=np.uint32),
        matches=np.zeros(2, dtype=bool),
    )
    got = masks_from_bytes(tokens, np.asarray([[0, 2]]), np.asarray([1]), train_straddling=True)
    assert (got.loss_mask.tolist(), got.trained.tolist(), got.straddling.tolist()) == ([], [0, 0], [0, 0])
