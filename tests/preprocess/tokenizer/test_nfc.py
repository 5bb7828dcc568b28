"""Which texts a tokenizer that brings them to NFC leaves as they are."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from sft_shards.preprocess.tokenizer import nfc
from sft_shards.preprocess.tokenizer.backends import NFC_STEP
from sft_shards.preprocess.tokenizer.nfc import Normalization, is_inert, normalize_known
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

HARD = "ae\u0301\u0316\u0338 =>\u0958\u09c7\u09be\u1100\u1161\u11a8가각\u2126Ω\u0340ự한글 中文，Привет 👍🏽\u0e38\u0e48\u0897\U000105c9"
TEXT = st.text(st.sampled_from(HARD) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


NEW = "\u0897\U000105c9"
"""Characters that not all tables know."""


def clusters(texts):
    """Each text in pieces, of which every other is a cluster."""
    raw = [text.encode() for text in texts]
    values, ends = np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)]).astype(np.int32)
    found = nfc.find_clusters(values, ends)
    whole = values.tobytes()
    return [whole[begin:end].decode() for begin, end in zip(found.begins, found.ends, strict=True)]


def in_normal_form(text, tokens=("<s>",)):
    """A text whose clusters are normalized; None where one is doubtful."""
    raw = text.encode()
    values = np.frombuffer(raw, dtype=np.uint8)
    found, out, last = nfc.find_clusters(values, np.asarray([0, len(raw)])), b"", 0
    normalization = Normalization(tokens)
    for begin, end in zip(found.begins.tolist(), found.ends.tolist(), strict=True):
        new = normalization.normalize(raw[begin:end])
        if new is None:
            return None
        out += raw[last:begin] + new
        last = end
    return (out + raw[last:]).decode()


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_clusters_lie_within_their_texts_and_hold_every_character_that_is_not_inert(texts):
    found = clusters(texts)
    assert found == [one for text in texts for one in clusters([text])]
    assert sum(not is_inert(one) for text in texts for one in text) == sum(
        not is_inert(one) for cluster in found for one in cluster
    )
    assert not [cluster for cluster in found if any(map(is_inert, cluster[1:]))]


@given(TEXT)
def test_a_text_is_normalized_by_its_clusters(text):
    got = in_normal_form(text)
    assert got in (None, normalizers.NFC().normalize_str(text))
    assert got in (None, unicodedata.normalize("NFC", text))


@given(st.text(st.sampled_from("abe\u0301\u0958\u09c7\u09be\u1100\u1161\u11a8가\u2126ự中\u0e38\u0344"), max_size=12))
def test_no_known_text_is_doubtful(text):
    assert in_normal_form(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("<s>\u0338", "<s>"),  # cut in front of the mark, it does not compose
        ("[\u212a]", "[K]"),  # the Kelvin sign becomes a letter of the token
        ("KK\u212a", "KKK"),
        ("e\u0301", "<\u00e9>"),
        ("e\u0301\u0316", "<\u0301>"),
        *((f"new {one}", "<s>") for one in NEW),
    ],
)
def test_what_depends_on_more_than_the_text_is_doubtful(text, token):
    assert in_normal_form(text, [token]) is None


@given(TEXT)
def test_a_normalized_text_is_in_normal_form_and_known(text):
    got = normalize_known(text)
    assert unicodedata.is_normalized("NFC", got)
    assert not [one for one in got if unicodedata.category(one) == "Cn"]


@pytest.mark.parametrize("text", ["Việt Nam", "русский й", "日本語がぎ", "👍🏽🇹🇷", "한국어", "naïve"])
def test_most_writing_in_normal_form_has_no_clusters(text):
    assert clusters([unicodedata.normalize("NFC", text)]) == []


@pytest.mark.parametrize("text", ["ภาษาไทย", "हिन्दी", "עברית", "العربية", "x\u0316\u0301"])
def test_writing_in_normal_form_is_kept(text):
    assert in_normal_form(unicodedata.normalize("NFC", text)) == unicodedata.normalize("NFC", text)


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
