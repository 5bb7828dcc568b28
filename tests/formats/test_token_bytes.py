"""The bytes of every id are those of Hugging Face's decoder, and a compact serialization gives the same ids."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

from sft_shards.formats.token_bytes import ALPHABET, _byte_level, token_bytes
from sft_shards.preprocess.tokenizer.loaded import _serialize
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit
TEXTS = ["naïve  café", " 日本語 and 한국어", "<s>x</s> <|im_start|>user\n", "\n\n\t1234567890 👩‍👩‍👧"]


@pytest.mark.parametrize("kind", ["bytes", "spm"])
def test_decoding_is_hugging_face_s(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    assert tokenizer.token_bytes is not None
    for text in TEXTS:
        ids = tokenizer.backend.encode(text).ids
        expected = tokenizer.backend.decode(ids, skip_special_tokens=False)
        assert tokenizer.token_bytes.decode(np.array(ids)).lstrip(" ") == expected.lstrip(" ")
    one_by_one = [tokenizer.decode(np.array([number])) for number in range(tokenizer.vocab_size)]
    spelled = [tokenizer.backend.decode([number], skip_special_tokens=False) for number in range(tokenizer.vocab_size)]
    assert [one.lstrip(" ") for one in one_by_one] == [one.lstrip(" ") for one in spelled]


@given(st.lists(st.binary(max_size=9) | st.just(None), max_size=20))
def test_byte_level_tokens(pieces):
    """None is a token with a character outside of the alphabet, which stands for nothing."""
    tokens = ["日" if piece is None else "".join(ALPHABET[byte] for byte in piece) for piece in pieces]
    data, offsets = _byte_level(tokens)
    got = [data[begin:end].tobytes() for begin, end in itertools.pairwise(offsets)]
    assert got == [piece or b"" for piece in pieces]


def test_merges_are_written_compactly_only_where_that_says_the_same(make_tokenizer):
    spec = json.loads((make_tokenizer("bytes") / "tokenizer.json").read_text("utf-8"))
    pairs = HuggingFaceTokenizer.from_str(json.dumps(spec))
    assert all(isinstance(pair, list) for pair in spec["model"]["merges"])
    compact = _serialize(spec)
    assert all(isinstance(pair, str) for pair in json.loads(compact)["model"]["merges"])
    again = HuggingFaceTokenizer.from_str(compact)
    for text in TEXTS:
        assert again.encode(text).ids == pairs.encode(text).ids
    spec["model"]["merges"].append(["a b", "c"])
    assert json.loads(_serialize(spec))["model"]["merges"] == spec["model"]["merges"]


def test_other_kinds_stand_for_no_fixed_bytes(make_tokenizer):
    spec = json.loads((make_tokenizer("bytes") / "tokenizer.json").read_text("utf-8"))
    size = 1 + max(spec["model"]["vocab"].values())
    assert token_bytes(spec, size) is not None
    assert token_bytes({**spec, "normalizer": {"type": "Lowercase"}}, size) is None
    assert token_bytes({**spec, "model": {**spec["model"], "type": "Unigram"}}, size) is None
