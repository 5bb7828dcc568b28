"""Tokenizing: both implementations give the same ids and masks, and ids that do not add up are judged, once."""

import itertools
import json
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import CHARACTERS, KINDS, Planted, as_lists, best_backend, rendered_from, without_reserved

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.token_bytes import _swallowing
from sft_shards.preprocess.pipeline.tokenize import BatchTokenization, ReferenceTokenization, encode, locate
from sft_shards.preprocess.tokenizer.backends import HuggingFace, TokenIds
from sft_shards.preprocess.tokenizer.byte_lengths import byte_lengths
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit
TEXT = st.text(CHARACTERS | st.characters(), max_size=20).map(without_reserved)
CUTS = st.lists(st.integers(0, 30), max_size=6).map(sorted)


class Counting(ReferenceTokenization):
    """Notes the records of each call."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.calls = []

    def tokenize(self, rendered):
        self.calls.append(rendered.records.tolist())
        return super().tokenize(rendered)


def stages(folder, straddle="train", wrap=lambda backend: backend):
    tokenizer = Tokenizer(str(folder))
    reference = Counting(tokenizer, tokenizer.control_tokens, straddle=straddle)
    table = byte_lengths(tokenizer) if straddle != "split" else None
    backend = wrap(best_backend(tokenizer))
    return BatchTokenization(backend, table, reference, train_straddling=straddle != "skip"), reference


def spans_of(text, cuts):
    """Spans that are not empty; some touch."""
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b <= len(text)]


@pytest.mark.parametrize(
    ("kind", "straddle"),
    [
        *((kind, straddle) for kind in KINDS for straddle in ("train", "skip")),
        ("bytes", "split"),
        ("bytes-nfc", "split"),
    ],
)
def test_both_implementations_give_the_same(make_tokenizer, kind, straddle):
    batch, reference = stages(make_tokenizer(kind), straddle)

    @settings(max_examples=60)
    @given(st.lists(st.tuples(TEXT, CUTS), max_size=5), st.booleans())
    def same(drawn, opened):
        drawn = [("<|im_start|>" * opened + text, cuts) for text, cuts in drawn]
        rendered = rendered_from([text for text, _ in drawn], [spans_of(*one) for one in drawn])
        assert as_lists(batch.tokenize(rendered)) == as_lists(reference.tokenize(rendered))

    same()


def swallowing(folder, target):
    """The tokenizer with control tokens that take the white space behind them along, as Phi-3's do."""
    shutil.copytree(folder, target)
    path = target / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    for token in spec["added_tokens"]:
        token["rstrip"] = token["content"] == "<|im_start|>"
    path.write_text(json.dumps(spec), "utf-8")
    return target


PIECES = st.lists(
    st.sampled_from(["<|im_start|>", "<|im_end|>", " ", "\n", "\x85", "\u3000", "\x1c", "a", "é"]), max_size=9
)


@pytest.mark.parametrize("kind", ["bytes", "spm"])
@pytest.mark.parametrize("straddle", ["train", "skip"])
def test_tokens_that_take_white_space_along(make_tokenizer, tmp_path, kind, straddle):
    batch, reference = stages(swallowing(make_tokenizer(kind), tmp_path / "folder"), straddle)

    @settings(max_examples=200)
    @given(st.lists(st.tuples(PIECES.map("".join), CUTS), max_size=4), st.booleans())
    def same(drawn, opened):
        drawn = [("<|im_start|>" * opened + text, cuts) for text, cuts in drawn]
        rendered = rendered_from([text for text, _ in drawn], [spans_of(*one) for one in drawn])
        assert as_lists(batch.tokenize(rendered)) == as_lists(reference.tokenize(rendered))

    same()
    reference.calls.clear()
    texts = ["<|im_start|>\n\n a<|im_end|> b", "<|im_start|> c"]
    batch.tokenize(rendered_from(texts, [[(16, 27)], [(13, 14)]]))
    assert reference.calls == []


@pytest.mark.parametrize("kind", ["spm", "metaspace"])
def test_split_is_refused_where_texts_cannot_be_cut(make_tokenizer, kind):
    with pytest.raises(UsageError, match="--straddle train or skip"):
        stages(make_tokenizer(kind), "split")


def test_a_text_without_tokens_is_rejected_by_both(make_tokenizer):
    batch, reference = stages(make_tokenizer("bytes"))
    rendered = rendered_from(["a b", "", "c"])
    for stage in (batch, reference):
        got = stage.tokenize(rendered)
        assert got.records.tolist() == [0, 2]
        assert [(one.record, one.reason) for one in got.rejects] == [(1, "empty")]


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_texts_with_typed_control_tokens_go_to_the_reference_alone(make_tokenizer, kind):
    batch, reference = stages(make_tokenizer(kind))
    texts = ["<|im_start|>a b", "<|im_start|>say <|im_end|>", "<|im_start|>the weather"]
    rendered = rendered_from(texts, [[(12, len(text))] for text in texts], [(), ((16, 26),), ()])
    got = as_lists(batch.tokenize(rendered))
    assert reference.calls == [[1]]
    assert batch.fallbacks == 1
    assert got == as_lists(reference.tokenize(rendered))


def test_text_that_is_not_in_normal_form_is_brought_to_it(make_tokenizer):
    folder = make_tokenizer("bytes-nfc")
    seen = []

    class Watching(HuggingFace):
        def encode(self, texts):
            seen.extend(texts)
            return super().encode(texts)

    batch, reference = stages(folder, wrap=lambda _: Watching(Tokenizer(str(folder))))
    texts = [f"<|im_start|>{text}" for text in ("café", "cafe\u0301", "\u0958", "naïve", "words")]
    got = batch.tokenize(rendered_from(texts))
    assert reference.calls == []
    assert "".join(seen) == unicodedata.normalize("NFC", "".join(texts))
    assert got.notes == {1: ("normalized_or_lossy",), 2: ("normalized_or_lossy",)}


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("<|im_start|>cafe\u0301 yes", [(16, 21)]),  # a span that begins at the accent
        ("<|im_start|>cafe\u0301 yes", [(13, 16)]),  # one that ends in front of it
        ("<|im_start|>a<|im_end|>\u0338\u0301", [(13, 23)]),  # a mark that composes with the end of a control token
        ("<|im_start|>new \U000105d2\u0307", [(13, 16)]),  # a character of a newer Unicode
    ],
)
def test_a_doubtful_normal_form_goes_to_the_reference(make_tokenizer, text, spans):
    batch, reference = stages(make_tokenizer("bytes-nfc"))
    rendered = rendered_from(["<|im_start|>e\u0301", text], [[(12, 14)], spans])
    got = as_lists(batch.tokenize(rendered))
    assert reference.calls == [[1]]
    assert got == as_lists(reference.tokenize(rendered))


@pytest.mark.parametrize("straddle", ["train", "skip"])
def test_both_implementations_bring_texts_to_the_same_normal_form(make_tokenizer, straddle):
    batch, reference = stages(make_tokenizer("bytes-nfc"), straddle)
    letters = (
        "ae>k <\u0301\u0316\u0338\u0958\u09c7\u09be\u1100\u1161\u11a8가\u2126\u212a\u1fef\u037e\u0340ự中\u0e38\u0344"
    )
    words = st.lists(st.sampled_from([*letters, "<|im_end|>", "<|im_start|>", " yes"]), max_size=20).map("".join)

    @settings(max_examples=200)
    @given(st.lists(st.tuples(words, CUTS), min_size=1, max_size=5), st.booleans())
    def same(drawn, opened):
        drawn = [("<|im_start|>" * opened + text, cuts) for text, cuts in drawn]
        rendered = rendered_from([text for text, _ in drawn], [spans_of(*one) for one in drawn])
        assert as_lists(batch.tokenize(rendered)) == as_lists(reference.tokenize(rendered))

    same()


def test_ids_that_do_not_add_up_are_judged_once(make_tokenizer):
    """A table that is wrong about one token: the ids are right, and the bytes of texts with it do not add up."""
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    table = byte_lengths(tokenizer)
    texts = [f"<|im_start|>{text}" for text in ("ask about it", "the second one", "and a third")]
    rendered = rendered_from(texts, [[(12, len(text))] for text in texts])
    only_here = set(tokenizer.backend.encode(texts[1]).ids) - set(tokenizer.backend.encode(texts[0] + texts[2]).ids)
    packed = table.packed.copy()
    packed[sorted(only_here)[0]] += np.uint64(1)
    reference = Counting(tokenizer, tokenizer.control_tokens, straddle="train")
    backend = best_backend(tokenizer)
    batch = BatchTokenization(backend, replace(table, packed=packed), reference, train_straddling=True)
    got = as_lists(batch.tokenize(rendered))
    assert reference.calls == [[1]]
    assert batch.fallbacks == 1
    assert got == as_lists(reference.tokenize(rendered))


def test_ids_that_do_not_add_up_and_are_wrong_end_the_job(make_tokenizer):
    batch, reference = stages(
        make_tokenizer("bytes"),
        wrap=lambda backend: Planted(backend, "second", lambda number: (number + 1) % 1500),
    )
    with pytest.raises(DataError, match=r"record 1: planted gives other ids than Hugging Face from token 3 on"):
        batch.tokenize(rendered_from(["<|im_start|>the first one", "<|im_start|>the second one"]))
    assert reference.calls == [[1]]


class Joining:
    """A backend that is given all texts as one, and may get one id wrong."""

    name = "joining"
    prefers_joined = True

    def __init__(self, backend, change=None):
        self.backend, self.change, self.calls = backend, change, []

    def encode(self, texts):
        self.calls.append(len(texts))
        tokens = self.backend.encode(texts)
        ids = tokens.ids.copy()
        if self.change is not None and len(texts) == 1:
            ids[len(ids) // 2] = self.change
        return TokenIds(ids=ids, offsets=tokens.offsets)


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_texts_that_begin_with_a_control_token_are_encoded_as_one(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    table = byte_lengths(tokenizer)
    opener = table.openers[0]

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=12), min_size=2, max_size=8))
    def same(drawn):
        texts = [opener + without_reserved(text) for text in drawn]
        rendered = rendered_from(texts)
        got = encode(Joining(HuggingFace(tokenizer)), rendered, table)
        assert as_lists(got) == as_lists(locate(HuggingFace(tokenizer).encode(texts), rendered, table))

    same()
    backend = Joining(HuggingFace(tokenizer))
    encode(backend, rendered_from([opener + "a b", opener + "c", opener + "naïve"]), table)
    assert backend.calls == [1]


@pytest.mark.parametrize("change", [0, 5, 100, 700, 1400])
def test_a_difference_in_texts_encoded_as_one_leads_to_each_by_itself(make_tokenizer, change):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    table = byte_lengths(tokenizer)
    texts = [table.openers[0] + text for text in ("ask about it", "the second one is longer", "and a third")]
    backend = Joining(HuggingFace(tokenizer), change)
    got = encode(backend, rendered_from(texts), table)
    assert backend.calls == [1, 3]
    assert np.array_equal(got.ids, HuggingFace(tokenizer).encode(texts).ids)


@pytest.mark.parametrize("texts", [["common", "words"], ["<|im_start|>e", "\u0301 alone"]])
def test_texts_that_might_run_into_each_other_are_encoded_one_by_one(make_tokenizer, texts):
    tokenizer = Tokenizer(str(make_tokenizer("bytes-nfc")))
    backend = Joining(HuggingFace(tokenizer))
    encode(backend, rendered_from(texts), byte_lengths(tokenizer))
    assert backend.calls == [2]


def test_tokens_of_which_the_white_space_is_not_certain():
    """Another token begins with the end of this one, or with white space, or is looked for in the normalized text."""
    one = {"content": "<a>", "rstrip": True, "lstrip": False, "single_word": False, "normalized": False}
    plain = {**one, "content": "<b>", "rstrip": False}
    assert _swallowing([one, plain]) == ("<a>",)
    assert _swallowing([plain]) == ()
    for other in ("a>x", ">x", "x<a", "<a><b>", " ", "  x", "é"):
        assert _swallowing([one, {**plain, "content": other}]) == ()
    assert _swallowing([one, {**plain, "lstrip": True}]) == _swallowing([{**one, "normalized": True}, plain]) == ()
