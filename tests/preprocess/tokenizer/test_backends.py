"""Backends: the same ids as Hugging Face's, or not used."""

import numpy as np
import pytest
from pipelines import Planted

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.tokenizer.backends import (
    SMALL,
    Fastokens,
    HuggingFace,
    choose_backend,
    hard_texts,
    load_backend,
)
from sft_shards.preprocess.tokenizer.nfc import normalize_known
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_fastokens_gives_hugging_face_s_ids_on_hard_texts(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    name, why = choose_backend("auto", tokenizer, SMALL)
    backend = load_backend(name, tokenizer)
    assert isinstance(backend, Fastokens), why
    texts = list(map(normalize_known, hard_texts(tokenizer)))
    got, expected = backend.encode(texts), HuggingFace(tokenizer).encode(texts)
    assert np.array_equal(got.ids, expected.ids)
    assert np.array_equal(got.offsets, expected.offsets)


def test_a_backend_that_cannot_be_used_is_replaced_or_refused(make_tokenizer, monkeypatch):
    metaspace = Tokenizer(str(make_tokenizer("metaspace")))
    name, why = choose_backend("auto", metaspace, SMALL)
    assert (name, "because fastokens cannot be used" in why) == ("hf", True)
    with pytest.raises(UsageError, match="--tokenizer-engine fastokens: cannot be used"):
        choose_backend("fastokens", metaspace, 0)
    tokenizer = Tokenizer(str(make_tokenizer("bytes")), cache=False)
    assert choose_backend("hf", tokenizer, SMALL)[0] == "hf"
    encode = Fastokens.encode

    class Unchanged:
        def __init__(self, backend):
            self.encode = lambda texts: encode(backend, texts)

    monkeypatch.setattr(
        Fastokens, "encode", lambda self, texts: Planted(Unchanged(self), "WE'RE", lambda _: 0).encode(texts)
    )
    name, why = choose_backend("auto", tokenizer, SMALL)
    assert (name, "WE'RE" in why) == ("hf", True)


def test_the_size_of_the_inputs_decides(make_tokenizer):
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    assert choose_backend("auto", tokenizer, SMALL - 1) == (
        "hf",
        "hf, because the inputs have less than 2,097,152 bytes",
    )
    assert choose_backend("auto", tokenizer, SMALL)[0] == "fastokens"
    assert choose_backend("fastokens", tokenizer, 0)[0] == "fastokens"


def test_a_fastokens_with_other_functions_gives_way_to_hugging_face(make_tokenizer, monkeypatch):
    monkeypatch.setattr("sft_shards.preprocess.tokenizer.backends._load_fastokens", lambda tokenizer: object())
    tokenizer = Tokenizer(str(make_tokenizer("bytes")), cache=False)
    name, sentence = choose_backend("auto", tokenizer, SMALL)
    assert name == "hf"
    assert "has other functions than this release calls" in sentence
