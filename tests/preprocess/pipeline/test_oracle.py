"""Ids and labels that somebody else's code made (axolotl, for Llama-2-style chats), against ours.

The tokenizer's licence does not let it ship, so this reads a folder beside the repository, or the one named by
SFT_SHARDS_TESTDATA; without it the module is not collected (see conftest).
"""

import json
import os
from pathlib import Path

import pytest
from pipelines import encode_one

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.templates import ChatTemplate, TrainOn
from sft_shards.preprocess.pipeline.reference import load_template
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

BESIDE = Path(__file__).parents[4] / "shared" / "testdata"
TESTDATA = Path(os.environ.get("SFT_SHARDS_TESTDATA", BESIDE))
SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. Your "
    "answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please "
    "ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does not make any sense, "
    "or is not factually coherent, explain why instead of answering something not correct. If you don't know the answer "
    "to a question, please don't share false information."
)


def oracle(name):
    raw = json.loads((TESTDATA / "oracle" / name).read_text("utf-8"))
    return raw["input_ids"], [int(label != -100) for label in raw["labels"]], raw["labels"]


def ours(template: ChatTemplate, talk: Conversation, tokenizer: Tokenizer):
    rendering = template.render(talk)
    encoded = encode_one(tokenizer, rendering, TrainOn().spans(rendering, talk))
    return encoded.ids.tolist(), encoded.loss_mask.tolist()


def conversation():
    record = json.loads((TESTDATA / "oracle" / "axolotl__conversation.json").read_text("utf-8"))
    return get("sharegpt").read(record, FieldMap())


def test_llama_2_chat_agrees_token_by_token():
    tokenizer = Tokenizer(str(TESTDATA / "tokenizers" / "llama2-32k-spm"))
    template = load_template("llama2", tokenizer)
    talk = conversation()
    ids, mask = ours(template, Conversation(turns=(Turn(role="system", content=SYSTEM), *talk.turns)), tokenizer)
    expected, labels, _ = oracle("axolotl__conversation.tokenized_llama2chat.json")
    length = min(len(ids), len(expected))
    assert length > 1900
    assert ids[:length] == expected[:length]
    assert mask[:length] == labels[:length]


def test_vicuna_differs_in_two_places_that_are_explained():
    """That oracle writes a second space before the first USER and before each ASSISTANT, and "</s>" as text in front of the real stop token, whose
    five letters it trains. Written into the conversation the same way, ours is equal to the last token."""
    tokenizer = Tokenizer(str(TESTDATA / "tokenizers" / "llama2-32k-spm"))
    expected, labels, _ = oracle("axolotl__conversation.tokenized.json")
    source = load_template("vicuna", tokenizer).source
    twice = source.replace(
        "'USER: ' + message.content + ' ASSISTANT:'",
        "(' ' if loop.first else '') + 'USER: ' + message.content + '  ASSISTANT:'",
    )
    template = ChatTemplate("vicuna", twice, tokenizer.template_tokens(own=False))
    turns = [
        Turn(role=turn.role, content=f"{turn.content}</s>" if turn.role == "assistant" else turn.content)
        for turn in conversation().turns
    ]
    ids, mask = ours(template, Conversation(turns=tuple(turns)), tokenizer)
    first = next((at for at, (one, other) in enumerate(zip(ids, expected, strict=False)) if one != other), None)
    assert first is None, (  # what stands there, if not
        first,
        tokenizer.backend.decode(ids[first - 9 : first + 9]),
        tokenizer.backend.decode(expected[first - 9 : first + 9]),
    )
    assert len(ids) == len(expected)
    assert mask == labels
