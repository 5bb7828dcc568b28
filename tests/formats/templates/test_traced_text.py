"""Traced texts and values: what is known of them is answered, and what is not is recorded or refused."""

import json
from itertools import product

import pytest
from traced_gaps import fill_gaps

from sft_shards.formats.templates import traced_text
from sft_shards.formats.templates.traced_json import TracedJson, holds_traced, traced_tojson
from sft_shards.formats.templates.traced_text import Trace, TracedText, Trim, Untraceable, untraced

pytestmark = pytest.mark.unit


def traced(before="", behind="", trace=None):
    trace = trace or Trace()
    return before + TracedText.message(0, trace) + behind, trace


def filled(text, trace, *texts):
    return fill_gaps(untraced(text), trace, texts)


@pytest.mark.parametrize(
    ("ask", "answer", "absent"),
    [
        (lambda text: "</think>" in text, True, set()),
        (lambda text: "<tool>" in text, False, {"<tool>"}),
        (lambda text: text.startswith("<think>"), True, set()),
        (lambda text: text.startswith("<thing>"), False, set()),
        (lambda text: text.startswith("<think>\nOnce"), False, {"Once"}),
        (lambda text: text.endswith("nk>"), True, set()),
        (lambda text: text == "<think>\n</think>", False, set()),
        (lambda text: text == "<think>\nso</think>", False, {"so"}),
        (lambda text: text == "other", False, set()),
        (lambda text: text == text + "", True, set()),
    ],
)
def test_questions_to_a_text_with_known_words(ask, answer, absent):
    text, trace = traced("<think>\n", "</think>")
    assert ask(text) is answer
    assert trace.absent == absent


@pytest.mark.parametrize(
    "ask",
    [
        lambda text: "k>\nx" in text,  # the known words end with its beginning
        lambda text: "x</th" in text,
        lambda text: "\na<" in text,
        lambda text: text.startswith("<think>\nx<"),
        lambda text: "\n short" in text,
        lambda text: str([text]),  # an ordinary text, of which nothing would be known
        lambda text: "{}".format({"k": text}),
        lambda text: text.split(),
        lambda text: text.upper(),
        lambda text: text[0],
        lambda text: len(text),
        lambda text: text.strip("<"),
        lambda text: text == text + "!",
        lambda text: "x" in TracedText.of(traced_tojson(traced()[0]), Trace()),
    ],
)
def test_what_cannot_be_answered(ask):
    with pytest.raises((Untraceable, IndexError)):
        ask(traced("<think>\n", "</think>")[0])


def test_what_would_stand_across_a_border_must_be_absent():
    text, trace = traced("<think>\n", "\n</think>")
    assert "\n</think>x" not in text
    assert trace.absent == {"\n</think>x", "</think>x"}
    trace.absent.clear()
    assert len(text.split("<answer>\n")) == 1
    assert trace.absent == {"<answer>\n", "<answer>"}


AROUND = ["", "a", "b", "ab", "ba", "x"]
SHORT = ["".join(one) for length in (1, 2, 3) for one in product("ab", repeat=length)]


@pytest.mark.parametrize("wanted", ["ab", "aa", "aba", "abb", "aabb", "abab"])
def test_what_is_looked_for_around_two_texts(wanted, monkeypatch):
    monkeypatch.setattr(traced_text, "SHORTEST_PART", 1)
    answered = 0
    for first, middle, last in product(AROUND, repeat=3):
        trace = Trace()
        text = first + TracedText.message(0, trace) + middle + TracedText.message(1, trace) + last
        try:
            holds, pieces, replaced = wanted in text, text.split(wanted), text.replace(wanted, "x")
        except Untraceable:
            continue
        for one, other in product([one for one in SHORT if not any(part in one for part in trace.absent)], repeat=2):
            whole = first + one + middle + other + last
            assert holds is (wanted in whole)
            assert [filled(piece, trace, one, other) for piece in pieces] == whole.split(wanted)
            assert filled(replaced, trace, one, other) == whole.replace(wanted, "x")
            answered += 1
    assert answered > 100


@pytest.mark.parametrize("value", ["so\n", "  a b ", "é"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n"),
        lambda text: text.split("</think>", 1)[-1].strip() + "!",
        lambda text: text.rsplit("n", 1)[0],
        lambda text: text.replace("think", "thought"),
        lambda text: text.removeprefix("<think>").removesuffix("</think>\n\nx").strip(),
        lambda text: text.strip(),
        lambda text: text.strip("") + text.lstrip("") + text.rstrip(""),
    ],
)
def test_changed_texts_are_filled_as_they_would_be(change, value):
    text, trace = traced("<think>\n", "\n</think>\n\nx")
    assert filled(change(text), trace, value) == change(f"<think>\n{value}\n</think>\n\nx")


@pytest.mark.parametrize(
    "options",
    [{}, {"indent": 4}, {"ensure_ascii": True}, {"separators": (",", ":")}, {"sort_keys": True, "indent": 2}],
)
def test_json_around_traced_leaves_is_filled_as_it_would_be(options):
    value, word = {"b": ["é", {"x": 1}], "a": 'say "so"'}, 'naïve "words"'
    trace = Trace()

    def made(leaf, text):
        return {"type": "function", "function": {"name": text, "more": [leaf, {"deep": leaf}]}}

    got = traced_tojson(made(TracedJson.value(1, trace), TracedText.message(0, trace)), **options)
    expected = json.dumps(made(value, word), **{"ensure_ascii": False, **options})
    assert filled(got, trace, word, json.dumps(value, ensure_ascii=False)) == expected


@pytest.mark.parametrize(
    "look",
    [
        lambda value: value["a"],
        lambda value: value.get("a"),
        lambda value: list(value),
        lambda value: len(value),
        lambda value: value == {"a": 1},
        lambda value: {**value},
        lambda value: dict(value),
        lambda value: str(value),
        lambda value: f"{value}",
        lambda value: repr([value]),
        lambda value: "a" in value,
    ],
)
def test_nobody_looks_into_a_traced_value(look):
    with pytest.raises(Untraceable):
        look(TracedJson.value(0, Trace()))


def test_a_traced_value_is_an_object_that_is_not_empty():
    value = TracedJson.value(0, Trace())
    assert value
    assert isinstance(value, dict)
    assert holds_traced([{"a": (value,)}])
    assert not holds_traced([{"a": ("b",)}])


def test_trims_in_a_row_are_kept_in_their_order():
    text, trace = traced()
    out = text.rstrip("\n").rstrip(" ").rstrip("\n")
    assert trace.split(untraced(out))[2] == [
        tuple(Trim(method="rstrip", characters=one) for one in ("\n", " ", "\n")),
    ]
