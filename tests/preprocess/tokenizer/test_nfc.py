"""Which texts a tokenizer that brings them to NFC leaves as they are."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.preprocess.tokenizer import nfc
from sft_shards.preprocess.tokenizer.backends import NFC_STEP
from sft_shards.preprocess.tokenizer.nfc import is_inert, normalize_known
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

HARD = "ae\u0301\u0316\u0338 =>\u0958\u09c7\u09be\u1100\u1161\u11a8가각\u2126Ω\u0340ự한글 中文，Привет 👍🏽\u0e38\u0e48\u0897\U000105c9"
TEXT = st.text(st.sampled_from(HARD) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def may_change(texts):
    raw = [text.encode() for text in texts]
    values, ends = np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)]).astype(np.int32)
    return nfc.may_change(values, ends).tolist()


@given(st.text(st.sampled_from("ae>=\u09c7\u1100가中\n"), max_size=2), TEXT, TEXT)
def test_what_nfc_leaves_stays_whatever_stands_around_it(before, text, after):
    if not may_change([text]):
        before = unicodedata.normalize("NFC", before)
        inert = "".join(one for one in after if is_inert(one))
        assert unicodedata.normalize("NFC", before + text + inert) == before + text + inert


@given(TEXT)
def test_a_normalized_text_is_in_normal_form_and_known(text):
    got = normalize_known(text)
    assert unicodedata.is_normalized("NFC", got)
    assert not [one for one in got if unicodedata.category(one) == "Cn"]


@pytest.mark.parametrize(
    "text", ["cafe\u0301", "\u0301 alone", "\u0958", "\u2126", "\u11a8", "x\u0316\u0301\u0316", "new \U000105d2\u0378"]
)
def test_what_could_change_is_found(text):
    assert may_change(["plain", "naïve 中文", text]) == [2]
    assert not is_inert(text)


@pytest.mark.parametrize(
    "text", ["Việt Nam", "ภาษาไทย", "हिन्दी", "עברית", "العربية", "한국어", "русский й", "日本語がぎ", "👍🏽🇹🇷"]
)
def test_writing_in_normal_form_is_kept(text):
    assert may_change([unicodedata.normalize("NFC", text)]) == []


def test_blocks_that_are_passed_over_are_inert():
    for point in (point for block in nfc.SYLLABLES for point in block):
        character = chr(point)
        assert unicodedata.category(character) in ("Lo", "Co")
        assert not unicodedata.combining(character)
        assert not unicodedata.decomposition(character)
        assert nfc._classes()[point] == nfc.INERT


def test_the_step_is_taken_out_of_a_tokenizer_as_it_is_written_down(make_tokenizer):
    assert Tokenizer(str(make_tokenizer("bytes-nfc"))).serialized.count(NFC_STEP) == 1
    assert NFC_STEP not in Tokenizer(str(make_tokenizer("bytes"))).serialized
