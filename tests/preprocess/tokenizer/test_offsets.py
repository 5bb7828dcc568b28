"""Encoding in pieces: typed control tokens as text, and cuts."""

import pytest

from sft_shards.preprocess.tokenizer.offsets import OffsetEncoder
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit


def test_pieces_are_encoded_alone_with_offsets_in_the_whole_text(make_tokenizer):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    text = "<|im_start|>the weather is fine<|im_end|>"
    got = OffsetEncoder(tokenizer, tokenizer.control_tokens).encode_in_pieces(text, (), [16])
    expected = [*tokenizer.backend.encode(text[:16]).ids, *tokenizer.backend.encode(text[16:]).ids]
    assert got.ids == expected
    assert "".join(text[start:end] for start, end in got.offsets) == text
    assert 16 in {start for start, _ in got.offsets}


def test_a_typed_control_token_is_text(make_tokenizer):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    text = "<|im_start|>say <|im_end|><|im_end|>"
    got = OffsetEncoder(tokenizer, tokenizer.control_tokens).encode_in_pieces(text, [(16, 26)], [])
    assert got.ids.count(tokenizer.backend.token_to_id("<|im_end|>")) == 1
    assert "".join(text[start:end] for start, end in got.offsets) == text


@pytest.mark.parametrize("cut", [False, True])
def test_a_piece_costs_the_same_however_many_there_are(make_tokenizer, steps, cut):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    encoder = OffsetEncoder(tokenizer, tokenizer.control_tokens)

    def encode(turns):
        turn = "<|im_start|>user\nx<|im_end|>\n"
        starts = [at + 17 for at in range(0, turns * len(turn), len(turn))]
        encoder.encode_in_pieces(turn * turns, [(starts[0] + 1, starts[0] + 11)], starts if cut else [])

    encode(1)
    some, more = (steps(lambda turns=turns: encode(turns)) for turns in (40, 160))
    assert more < 4.2 * some
