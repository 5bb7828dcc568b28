"""What somebody else's code (axolotl) made of one conversation in two chat formats, against ours.

Its texts, and which of their characters carry loss, are in the repository. Its ids need the tokenizer of Llama 2, whose
licence does not let it ship: that half reads a folder beside the repository, or the one that SFT_SHARDS_TESTDATA names,
and is skipped where there is none.
"""

import json
import os
from pathlib import Path

import pytest
from pipelines import encode_one
from preprocess_jobs import DATA

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.templates import ChatTemplate, TemplateTokens, TrainOn
from sft_shards.formats.templates.registry import template_source
from sft_shards.preprocess.pipeline.reference import load_template
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.unit

TESTDATA = Path(os.environ.get("SFT_SHARDS_TESTDATA", Path(__file__).parents[4] / "shared" / "testdata"))
LLAMA_2 = TESTDATA / "tokenizers" / "llama2-32k-spm"
needs_llama_2 = pytest.mark.skipif(
    not LLAMA_2.is_dir(),
    reason=f"no {LLAMA_2}: Llama 2's tokenizer may not ship; name its folder's with SFT_SHARDS_TESTDATA",
)
TEXTS = json.loads((DATA / "axolotl_texts.json").read_text("utf-8"))
TOKENS = TemplateTokens(variables={"bos_token": "<s>", "eos_token": "</s>"}, control=("</s>",), stop=("</s>",))
SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. Your "
    "answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please "
    "ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does not make any sense, "
    "or is not factually coherent, explain why instead of answering something not correct. If you don't know the answer "
    "to a question, please don't share false information."
)


def oracle(name):
    raw = json.loads((TESTDATA / "oracle" / name).read_text("utf-8"))
    return raw["input_ids"], [int(label != -100) for label in raw["labels"]]


def ours(template: ChatTemplate, talk: Conversation, tokenizer: Tokenizer):
    rendering = template.render(talk)
    encoded = encode_one(tokenizer, rendering, TrainOn().spans(rendering, talk))
    return encoded.ids.tolist(), encoded.loss_mask.tolist()


def conversation():
    return get("sharegpt").read(TEXTS["conversation"], FieldMap())


def with_system(talk: Conversation) -> Conversation:
    """Llama 2's default system prompt in front, which axolotl adds by itself."""
    return Conversation(turns=(Turn(role="system", content=SYSTEM), *talk.turns))


def as_axolotl_writes_it(talk: Conversation) -> Conversation:
    """Its Vicuna has "</s>" as text in front of the real stop token, and trains its five letters."""
    return Conversation(
        turns=tuple(
            Turn(role=turn.role, content=f"{turn.content}</s>" if turn.role == "assistant" else turn.content)
            for turn in talk.turns
        )
    )


def twice_spaced(source: str) -> str:
    """Its Vicuna writes a second space before the first USER and before each ASSISTANT."""
    changed = source.replace(
        "'USER: ' + message.content + ' ASSISTANT:'",
        "(' ' if loop.first else '') + 'USER: ' + message.content + '  ASSISTANT:'",
    )
    assert changed != source
    return changed


@pytest.mark.parametrize("name", ["llama2", "vicuna"])
def test_texts_and_their_trained_characters(name):
    source = template_source(name)
    talk = with_system(conversation()) if name == "llama2" else as_axolotl_writes_it(conversation())
    template = ChatTemplate(name, source if name == "llama2" else twice_spaced(source), TOKENS)
    rendering = template.render(talk)
    expected = "".join(text for text, _ in TEXTS[name])
    assert rendering.text[: len(expected)] == expected
    assert len(rendering.text) == len(expected) or name == "llama2", "that one is cut at 4,096 tokens"
    trained = [number for start, stop in TrainOn().spans(rendering, talk) for number in range(start, stop)]
    carries = [bool(carried) for text, carried in TEXTS[name] for _ in text]
    assert [number in set(trained) for number in range(len(expected))] == carries


@needs_llama_2
def test_llama_2_chat_agrees_token_by_token():
    tokenizer = Tokenizer(str(LLAMA_2))
    ids, mask = ours(load_template("llama2", tokenizer), with_system(conversation()), tokenizer)
    expected, labels = oracle("axolotl__conversation.tokenized_llama2chat.json")
    length = min(len(ids), len(expected))
    assert length > 1900
    assert ids[:length] == expected[:length]
    assert mask[:length] == labels[:length]


@needs_llama_2
def test_vicuna_agrees_token_by_token_where_its_two_differences_are_written_in():
    tokenizer = Tokenizer(str(LLAMA_2))
    expected, labels = oracle("axolotl__conversation.tokenized.json")
    source = twice_spaced(load_template("vicuna", tokenizer).source)
    template = ChatTemplate("vicuna", source, tokenizer.template_tokens(own=False))
    ids, mask = ours(template, as_axolotl_writes_it(conversation()), tokenizer)
    first = next((at for at, (one, other) in enumerate(zip(ids, expected, strict=False)) if one != other), None)
    assert first is None, (  # what stands there, if not
        first,
        tokenizer.backend.decode(ids[first - 9 : first + 9]),
        tokenizer.backend.decode(expected[first - 9 : first + 9]),
    )
    assert len(ids) == len(expected)
    assert mask == labels
