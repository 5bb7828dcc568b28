"""Ids of typed control tokens, by an oracle that encodes every text by itself with a tokenizer that lacks them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import FORM, as_json, as_lists, make_pipeline
from tokenizers import Tokenizer

pytestmark = pytest.mark.unit

# Roles as in DeepSeek's tokenizer, whose role tokens are not special, and a tag that people type in answers.
TEMPLATE = (
    "{% for m in messages %}{{ '<｜User｜>' + m.content if m.role == 'user' else '<｜Assistant｜>' + m.content + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
OTHER, TAG, USER, ASSISTANT = ADDED = ("<|fim|>", "<tool_call>", "<｜User｜>", "<｜Assistant｜>")
"""In this order the ids of those that stay do not change when `without` takes others out."""
END = "<|im_end|>"
WORDS = st.sampled_from([*ADDED, END, "<|im_start|>", "the weather", " is", "é", "日本", "\n", "<", "|>", "｜>", "x"])
TEXT = st.lists(WORDS, min_size=1, max_size=6).map("".join).filter(str.strip)


@pytest.fixture(scope="module", params=[False, True], ids=["as-written", "normalized"])
def folder(request, make_tokenizer, tmp_path_factory):
    """A byte-level tokenizer with added tokens that are not special."""
    source = make_tokenizer("bytes")
    spec = json.loads((source / "tokenizer.json").read_text("utf-8"))
    first = 1 + max(spec["model"]["vocab"].values())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": request.param, "special": False}
    spec["added_tokens"] += [{"id": first + number, "content": token, **flags} for number, token in enumerate(ADDED)]
    folder = tmp_path_factory.mktemp("added")
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    config = json.loads((source / "tokenizer_config.json").read_text("utf-8")) | {"chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def without(folder, tokens):
    """Hugging Face's tokenizer, from whose file some added tokens were taken out."""
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in tokens]
    return Tokenizer.from_str(json.dumps(spec))


def expected(folder, texts):
    """Ids and mask: each text by itself, tags being tokens for assistants only, and the template's tokens around."""
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    control = {token["content"] for token in json.loads(whole.to_str())["added_tokens"]} - {TAG, OTHER}
    others, own = without(folder, control | {TAG}), without(folder, control)
    ids, mask = [], []
    for number, text in enumerate(texts):
        said = number % 2
        words = (own if said else others).encode(text, add_special_tokens=False).ids
        end = [whole.token_to_id(END)] if said else []
        ids += [whole.token_to_id(ASSISTANT if said else USER), *words, *end]
        mask += [0, *[said] * len(words + end)]
    return ids, mask


@settings(max_examples=40)
@given(texts=st.lists(TEXT, min_size=2, max_size=4).map(lambda texts: texts[: len(texts) // 2 * 2]), form=FORM)
def test_typed_control_tokens_have_the_ids_of_text(folder, pipelines, texts, form):
    roles = {"openai": ("role", "content", "user", "assistant"), "sharegpt": ("from", "value", "human", "gpt")}
    role, content, *names = roles.get(form, roles["openai"])
    record = {"messages": [{role: names[at % 2], content: text} for at, text in enumerate(texts)]}
    pipeline = pipelines(folder)
    raw, kind = as_json([record]), form if form in roles else "openai"
    got, reference = pipeline.batch(raw, kind), pipeline.reference.batch(raw, kind)
    assert as_lists(got) == as_lists(reference)
    ids, mask = expected(folder, texts)
    assert got.ids.tolist() == ids
    assert got.loss_mask.tolist() == mask
    assert got.loss_mask.dtype == np.uint8


@pytest.fixture(scope="module")
def pipelines():
    made = {}
    return lambda folder: made.setdefault(folder, make_pipeline(folder))


def test_a_tag_in_an_answer_stays_on_the_batch_path_and_in_a_question_it_does_not(folder):
    pipeline = make_pipeline(folder)
    texts = [("a", f"b {TAG} c"), (f"a {TAG}", "b"), (f"a {OTHER}", "b"), ("a", f"b{USER}")]
    records = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in texts]
    batch = pipeline.batch(as_json(records), "openai")
    assert pipeline.fallbacks["render"] == 2
    assert batch.notes["typed_control_tokens"] == 2


def test_calls_in_an_answer_that_carry_no_loss_go_to_the_reference(folder):
    pipeline = make_pipeline(folder, train_tool_calls=False)
    answer = "b <tool_call>c</tool_call> d"
    record = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]}
    batch = pipeline.batch(as_json([record]), "openai")
    assert as_lists(batch) == as_lists(pipeline.reference.batch(as_json([record]), "openai"))
    trained = [number for number, one in zip(batch.ids.tolist(), batch.loss_mask.tolist(), strict=True) if one]
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).decode(trained, skip_special_tokens=False) == f"b d{END}"
