"""Backends: the same ids as Hugging Face's, or not used."""

import numpy as np
import pytest
from pipelines import Planted

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.tokenizer.backends import Fastokens, HuggingFace, choose_backend, hard_texts
from sft_shards.preprocess.tokenizer.nfc import normalize_known
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("kind", ["bytes", "bytes-nfc", "spm"])
def test_fastokens_gives_hugging_face_s_ids_on_hard_texts(make_tokenizer, kind):
    tokenizer = Tokenizer(str(make_tokenizer(kind)))
    backend, why = choose_backend("auto", tokenizer, ["a sample"])
    assert isinstance(backend, Fastokens), why
    texts = list(map(normalize_known, hard_texts(tokenizer)))
    got, expected = backend.encode(texts), HuggingFace(tokenizer).encode(texts)
    assert np.array_equal(got.ids, expected.ids)
    assert np.array_equal(got.offsets, expected.offsets)


def test_a_backend_that_cannot_be_used_is_replaced_or_refused(make_tokenizer, monkeypatch):
    metaspace = Tokenizer(str(make_tokenizer("metaspace")))
    backend, why = choose_backend("auto", metaspace, [])
    assert (backend.name, "because fastokens cannot be used" in why) == ("hf", True)
    with pytest.raises(UsageError, match="--tokenizer-engine fastokens: cannot be used"):
        choose_backend("fastokens", metaspace, [])
    tokenizer = Tokenizer(str(make_tokenizer("bytes")))
    assert choose_backend("hf", tokenizer, [])[0].name == "hf"
    encode = Fastokens.encode

    class Unchanged:
        def __init__(self, backend):
            self.encode = lambda texts: encode(backend, texts)

    monkeypatch.setattr(
        Fastokens, "encode", lambda self, texts: Planted(Unchanged(self), "my sample", lambda _: 0).encode(texts)
    )
    backend, why = choose_backend("auto", tokenizer, ["my sample text"])
    assert (backend.name, "'my sample text'" in why) == ("hf", True)
