"""Formats that give way in detection: rounds, prompts with completions, instances, plain text; and ms-swift's history."""

import pytest

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, detect, formats, get
from sft_shards.formats.records.registry import YIELDING

pytestmark = pytest.mark.unit

NO_MAP = FieldMap()
ROUND = {"human": "q", "assistant": "a"}
ASKED = [{"role": "user", "content": "q"}]
SAID = [{"role": "assistant", "content": "a"}]
RECORDS = {
    "firefly": ("rounds", {"conversation_id": 1, "category": "x", "conversation": [ROUND], "dataset": "moss"}),
    "xtuner": ("rounds", {"conversation": [{"system": "", "input": "q", "output": "a"}]}),
    "a bare list": ("rounds", [{"query": "q", "response": "a"}]),
    "trl": ("prompt-completion", {"prompt": ASKED, "completion": SAID}),
    "self-instruct": (
        "instances",
        {
            "id": "seed_task_0",
            "instruction": "q",
            "instances": [{"input": "", "output": "a"}],
            "is_classification": False,
        },
    ),
    "ms-swift": ("alpaca", {"query": "q", "response": "a", "history": []}),
}
OTHERS = {
    "alpaca": {"instruction": "q", "output": "a"},
    "chatml": {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
    "openai": {"messages": ASKED + SAID},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
}


def turns(record, form, fields=NO_MAP):
    return [(turn.role, turn.content) for turn in get(form).read(record, fields).turns]


def reason(record, form, fields=NO_MAP):
    with pytest.raises(RecordError) as caught:
        get(form).read(record, fields)
    return caught.value.reason


@pytest.mark.parametrize("name", RECORDS)
def test_each_is_detected_and_read(name):
    form, record = RECORDS[name]
    assert detect([(0, record)], NO_MAP, "x").name == form
    assert turns(record, form) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", [name for name in RECORDS if RECORDS[name][0] in YIELDING])
def test_a_file_whose_format_was_detected_before_still_has_it(other, name):
    sample = [(0, RECORDS[name][1]), (1, OTHERS[other]), (2, RECORDS[name][1])]
    assert detect(sample, NO_MAP, "x").name == other
    assert not any(formats()[one].matches(OTHERS[other], NO_MAP) for one in YIELDING)


def test_a_mixture_of_those_that_give_way_is_refused():
    sample = [(0, RECORDS["firefly"][1]), (4, RECORDS["trl"][1])]
    with pytest.raises(UsageError, match=r"mixes formats: rounds \(record 0\), prompt-completion \(record 4\)"):
        detect(sample, NO_MAP, "x")


@pytest.mark.parametrize("record", [{"text": "### Human: q\n### Assistant: a"}, "[INST] q [/INST] a", {"content": "x"}])
def test_a_plain_text_is_never_detected_and_the_message_says_how_to_train_on_it(record):
    with pytest.raises(UsageError, match=r"--format text trains on every token of it"):
        detect([(0, record)], NO_MAP, "x")
    with pytest.raises(UsageError, match=r"--field$"):
        detect([(0, {"foo": 1})], NO_MAP, "x")


def test_rounds_have_system_prompts_and_weights():
    rounds = [
        {"system": "S", "input": "q", "output": "a", "output_with_loss": False},
        {"system": "S", "input": "r", "output": "b", "weight": 0},
        {"system": "T", "input": "s", "output": "c", "loss": True},
    ]
    found = get("rounds").read({"conversation": rounds}, NO_MAP).turns
    assert [(turn.role, turn.content, turn.weight) for turn in found] == [
        ("system", "S", 1),
        ("user", "q", 1),
        ("assistant", "a", 0),
        ("user", "r", 1),
        ("assistant", "b", 0),
        ("system", "T", 1),
        ("user", "s", 1),
        ("assistant", "c", 1),
    ]
    beside = {"system": "S", "conversation": rounds[:1]}
    assert turns(beside, "rounds") == [("system", "S"), ("user", "q"), ("assistant", "a")]


def test_keys_of_rounds_are_mapped():
    fields = FieldMap(columns={"messages": "talk.all", "question": "q", "answer": "a"})
    record = {"talk": {"all": [{"q": "Q", "a": "A", "input": "no"}]}}
    assert detect([(0, record)], fields, "x").name == "rounds"
    assert turns(record, "rounds", fields) == [("user", "Q"), ("assistant", "A")]


@pytest.mark.parametrize(
    ("rounds", "why"),
    [
        ([{"input": " ", "output": "a text alone"}], "empty_instruction"),
        ([{"human": "q", "assistant": ""}], "empty_assistant_turn"),
        ([{"human": "q"}], "missing_field"),
        ([{"human": 3, "assistant": "a"}], "wrong_type"),
        ([ROUND, "x"], "wrong_type"),
        ([{**ROUND, "system": 3}], "wrong_type"),
        ([{**ROUND, "weight": 0.5}], "fractional_weight"),
        ([], "no_assistant_turn"),
    ],
)
def test_rounds_that_are_refused(rounds, why):
    assert reason({"conversation": rounds}, "rounds") == why


def test_the_answers_in_a_prompt_are_context_for_those_who_train_by_weight():
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    record = {"prompt": [*ASKED, *SAID, *ASKED], "completion": SAID, "tools": [tool], "system": "S", "messages": None}
    found = get("prompt-completion").read(record, NO_MAP)
    assert [turn.weight for turn in found.turns] == [1, 1, 0, 1, 1]
    assert [turn.role for turn in found.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert found.tools == (tool,)
    fields = FieldMap(columns={"prompt": "p", "completion": "c.0", "content": "said"})
    mapped = {"p": [{"role": "user", "said": "q"}], "c": [[{"role": "assistant", "said": "a"}]]}
    assert turns(mapped, "prompt-completion", fields) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"prompt": ASKED, "completion": ASKED}, "no_assistant_turn"),
        ({"prompt": ASKED + SAID, "completion": []}, "no_assistant_turn"),
        ({"prompt": ASKED}, "missing_field"),
        ({"prompt": "q", "completion": SAID}, "wrong_type"),
        ({"prompt": ["q"], "completion": SAID}, "wrong_type"),
        ([], "wrong_type"),
    ],
)
def test_prompts_with_completions_that_are_refused(record, why):
    assert reason(record, "prompt-completion") == why


def test_an_instance_has_an_input():
    record = {"instruction": "Add", "instances": [{"input": "1 2", "output": "3"}], "system": "S"}
    found = get("instances").read(record, NO_MAP).turns
    assert [(turn.content, turn.context) for turn in found] == [("S", None), ("Add", "1 2"), ("3", None)]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"instruction": "Add", "instances": [{"output": "3"}, {"output": "4"}]}, "wrong_type"),
        ({"instruction": "Add", "instances": []}, "wrong_type"),
        ({"instruction": "Add", "instances": ["3"]}, "wrong_type"),
        ({"instruction": "Add"}, "missing_field"),
        ({"instruction": "Add", "instances": [{"input": ""}]}, "missing_field"),
        ("Add", "wrong_type"),
    ],
)
def test_instances_that_are_refused(record, why):
    assert reason(record, "instances") == why


@pytest.mark.parametrize("pair", [["a", "b"], {"query": "a", "response": "b"}, {"instruction": "a", "output": "b"}])
def test_a_round_of_an_alpaca_history_is_a_pair_or_an_object(pair):
    record = {"query": "c", "response": "d", "history": [pair]}
    assert [text for _, text in turns(record, "alpaca")] == ["a", "b", "c", "d"]
    assert reason({**record, "history": [{"query": "a"}]}, "alpaca") == "missing_field"


@pytest.mark.parametrize("record", [{"text": " x\n"}, {"content": " x\n"}, {"text": None, "document": " x\n"}, " x\n"])
def test_a_plain_text_is_untouched(record):
    conversation = get("text").read(record, NO_MAP)
    assert conversation.is_plain_text
    assert conversation.turns[0].content == " x\n"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"text": " \n"}, "empty"),
        ({"text": 3}, "wrong_type"),
        ({"other": "x"}, "missing_field"),
        ({"text": "x", "images": ["a.png"]}, "not_text"),
        ({"text": "x \ud800"}, "lone_surrogate"),
        (3, "wrong_type"),
    ],
)
def test_plain_texts_that_are_refused(record, why):
    assert reason(record, "text") == why
