"""What is read from a tokenizer folder: the tokens that a model stops on."""

import json

import pytest
from tokenizers import Tokenizer, models
from toy_runs import vocabulary_hash
from transformers import PreTrainedTokenizerFast

from sft_shards.preprocess.tokenizer.metadata import load

pytestmark = pytest.mark.unit

SPECIAL = ["<|return|>", "<|call|>", "<|end|>", "<|endoftext|>", "<|start|>"]
RETURN, CALL, END, ENDOFTEXT, START = range(5)


@pytest.fixture
def stops(tmp_path):
    """Returns the stop tokens of a folder with gpt-oss's control tokens and a generation_config.json."""

    def read(content, eos="<|return|>"):
        vocabulary = {token: number for number, token in enumerate([*SPECIAL, "a"])}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
        fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, additional_special_tokens=SPECIAL)
        fast.save_pretrained(tmp_path)
        if content is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(content))
        metadata, _, _ = load(tmp_path, "t")
        assert set(metadata.control) == set(SPECIAL)
        return set(metadata.stop)

    return read


KNOWN = {"<|return|>", "<|call|>", "<|end|>", "<|endoftext|>"}


def test_a_list_of_stop_tokens_wins_over_the_known_names(stops):
    assert stops({"eos_token_id": [RETURN, ENDOFTEXT, CALL]}) == {"<|return|>", "<|endoftext|>", "<|call|>"}


def test_eos_stops_though_the_list_lacks_it(stops):
    assert stops({"eos_token_id": [CALL, START]}) == {"<|return|>", "<|call|>", "<|start|>"}


@pytest.mark.parametrize("ids", [ENDOFTEXT, [ENDOFTEXT], [ENDOFTEXT, ENDOFTEXT], [ENDOFTEXT, 999], None])
def test_a_single_stop_token_does_not(stops, ids):
    """Base models name <|endoftext|> alone, and their template ends turns with another token."""
    assert stops({"eos_token_id": ids}, eos="<|endoftext|>") == KNOWN


def test_a_single_stop_token_counts_beside_the_known_names(stops):
    assert stops({"eos_token_id": START}) == {*KNOWN, "<|start|>"}


@pytest.mark.parametrize("content", [None, {}])
def test_the_known_names_count_where_nothing_is_listed(stops, content):
    assert stops(content) == KNOWN


MODELS = {
    "words": models.WordLevel({"a": 0, "é": 1, "\n": 2, "</s>": 3}, unk_token="a"),
    "pieces": models.WordPiece({"a": 0, "##b": 7, "</s>": 2}, unk_token="a"),
    "pairs": models.BPE({"a": 0, "b": 1, "ab": 2, "</s>": 3}, [("a", "b")]),
    "scores": models.Unigram([("a", -1.0), ("b", -2.0), ("</s>", 0.0)], 0, False),
}


@pytest.mark.parametrize("model", MODELS)
def test_the_vocabulary_is_what_transformers_says(tmp_path, model):
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(MODELS[model]), eos_token="</s>")
    fast.add_tokens(["<new>", "a"])
    fast.save_pretrained(tmp_path)
    expected = PreTrainedTokenizerFast.from_pretrained(tmp_path).get_vocab()
    assert "<new>" in expected
    metadata, _, _ = load(tmp_path, "t")
    assert metadata.vocab_sha256 == vocabulary_hash(expected)
    assert metadata.vocab_size == max(len(expected), 1 + max(expected.values()))


def test_two_tokens_of_one_id_are_both_in_the_vocabulary(tmp_path):
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(MODELS["pairs"]), eos_token="</s>")
    fast.save_pretrained(tmp_path)
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    spec["model"]["vocab"]["c"] = 1
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    expected = PreTrainedTokenizerFast.from_pretrained(tmp_path).get_vocab()
    assert expected["b"] == expected["c"] == 1
    metadata, _, _ = load(tmp_path, "t")
    assert metadata.vocab_sha256 == vocabulary_hash(expected)
