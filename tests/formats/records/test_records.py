"""Raw records to conversations: every spelling, every oddity, and what is refused with which reason."""

import json

import pyarrow as pa
import pytest

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, detect, get

pytestmark = pytest.mark.unit

NO_MAP = FieldMap()


def turns(record, form, fields=NO_MAP):
    return [(turn.role, turn.content) for turn in get(form).read(record, fields).turns]


def reason(record, form, fields=NO_MAP):
    with pytest.raises(RecordError) as caught:
        get(form).read(record, fields)
    return caught.value.reason


@pytest.mark.parametrize("question", ["instruction", "prompt", "question", "query"])
@pytest.mark.parametrize("answer", ["output", "response", "answer", "completion"])
def test_alpaca_spellings(question, answer):
    assert turns({question: "Q", answer: "A"}, "alpaca") == [("user", "Q"), ("assistant", "A")]


def test_alpaca_input_is_kept_apart_and_joined_for_templates_that_know_none():
    conversation = get("alpaca").read({"instruction": "Add", "input": "1 2", "output": "3"}, NO_MAP)
    message = conversation.messages()[0]
    assert message["content"] == "Add\n\n1 2"
    assert (message["instruction"], message["input"]) == ("Add", "1 2")


def test_alpaca_system_and_history_come_first():
    record = {"system": "S", "history": [["a", "b"]], "instruction": "c", "input": "", "output": "d"}
    assert [role for role, _ in turns(record, "alpaca")] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"instruction": "Q", "output": ""}, "empty_assistant_turn"),
        ({"instruction": "Q", "output": None}, "wrong_type"),
        ({"instruction": "Q"}, "missing_field"),
        ({"instruction": "", "input": "", "output": "A"}, "empty_instruction"),
        ({"instruction": "Q", "output": "A", "history": [["a"]]}, "wrong_type"),
        ({"instruction": "Q", "output": "A \ud800"}, "lone_surrogate"),
        ({"instruction": "Q", "output": "A", "image": "a.png"}, "not_text"),
        (["Q", "A"], "wrong_type"),
    ],
)
def test_alpaca_rejects(record, why):
    assert reason(record, "alpaca") == why


def test_chatml_contents_are_untouched():
    text = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n a\u2028b\n<|im_end|>\n<|im_start|>assistant\nc<|im_end|>"
    )
    assert turns({"text": text}, "chatml") == [("system", "S"), ("user", " a\u2028b\n"), ("assistant", "c")]
    assert turns(text, "chatml") == turns({"text": text}, "chatml")


@pytest.mark.parametrize(
    "text",
    [
        "no turns at all",
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\ncut off",
        "<|im_start|>user\na<|im_end|> stray <|im_start|>assistant\nb<|im_end|>",
        "<|im_start|>user\na<|im_start|>assistant\nb<|im_end|>",
    ],
)
def test_chatml_that_is_not_whole_is_refused(text):
    assert reason({"text": text}, "chatml") == "malformed_chatml"


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation", "dialog"])
def test_openai_columns(column):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert turns({column: messages}, "openai") == [("user", "a"), ("assistant", "b")]
    assert turns(messages, "openai") == [("user", "a"), ("assistant", "b")]


def test_openai_parts_are_joined_and_pictures_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}]
    answer = {"role": "assistant", "content": "c"}
    assert turns([{"role": "user", "content": parts}, answer], "openai")[0] == ("user", "ab")
    picture = [*parts, {"type": "image_url", "image_url": {"url": "x"}}]
    assert reason([{"role": "user", "content": picture}, answer], "openai") == "not_text"


@pytest.mark.parametrize(
    "parts",
    [
        [
            {"type": "reasoning", "value": "hm"},
            {"type": "text", "value": "b"},
            {"type": "tool_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        ],
        [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "b"},
            {"type": "tool_use", "name": "f", "input": {"x": 1}},
        ],
    ],
)
def test_parts_of_reasoning_and_calls_are_read(parts):
    question = {"role": "user", "content": "a"}
    turn = get("openai").read([question, {"role": "assistant", "content": parts}], NO_MAP).turns[1]
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert (turn.reasoning, turn.content, turn.tool_calls) == ("hm", "b", (call,))
    only = get("openai").read([question, {"role": "assistant", "content": parts[2:]}], NO_MAP).turns[1]
    assert (only.content, only.tool_calls) == (None, (call,))
    assert reason([question, {"role": "assistant", "content": parts[::-1]}], "openai") == "wrong_type"
    assert reason([question, {"role": "assistant", "content": parts, "thinking": "no"}], "openai") == "wrong_type"
    assert reason([{"role": "user", "content": parts}, question], "openai") == "not_text"


def reasoning_of(**keys):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **keys}]
    turn = get("openai").read({"messages": messages}, NO_MAP).turns[1]
    return turn.reasoning, turn.reasoning_alias


@pytest.mark.parametrize("spelling", ["reasoning_content", "reasoning", "thinking"])
def test_the_first_spelling_of_reasoning_that_is_not_null_counts(spelling):
    keys = {"reasoning_content": None, "reasoning": None, "thinking": None, spelling: "hm"}
    assert reasoning_of(**keys) == ("hm", spelling == "reasoning")


def test_spellings_of_reasoning_must_say_the_same():
    """Templates read one of them, and which one is theirs to choose."""
    assert reasoning_of(reasoning_content="hm", reasoning="hm") == ("hm", True)
    assert reasoning_of(reasoning_content="hm", reasoning="") == ("hm", False)
    for keys in ({"reasoning_content": "", "reasoning": "hm"}, {"thinking": "hm", "reasoning": "so"}):
        with pytest.raises(RecordError, match="of a message differ: keep one of them"):
            reasoning_of(**keys)


def test_openai_tools_calls_weights_and_reasoning():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "é"}'}}
    record = {
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": "a", "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "function", "content": "r", "name": "f", "tool_call_id": "1"},
            {"role": "assistant", "content": "b", "reasoning_content": "hm", "weight": 1},
        ],
        "tools": json.dumps([{"name": "f", "parameters": {}}]),
    }
    conversation = get("openai").read(record, NO_MAP)
    assert [turn.role for turn in conversation.turns] == ["developer", "user", "assistant", "tool", "assistant"]
    assert [turn.weight for turn in conversation.turns] == [1, 1, 0, 1, 1]
    assert conversation.turns[2].tool_calls[0]["function"] == {"name": "f", "arguments": {"x": "é"}}
    assert list(conversation.turns[2].tool_calls[0]) == list(call)  # a template may print it whole
    assert conversation.turns[4].reasoning == "hm"
    assert conversation.tools == ({"type": "function", "function": {"name": "f", "parameters": {}}},)


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"loss": False}, 0),
        ({"loss": True}, 1),
        ({"loss": 0.0}, 1),
        ({"loss": None}, 1),
        ({"loss": False, "train": 1}, 1),
    ],
)
def test_a_loss_of_false_is_a_weight_of_0(keys, weight):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **keys}]
    assert get("openai").read(messages, NO_MAP).turns[1].weight == weight
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", **keys}]
    assert get("sharegpt").read({"conversations": talk}, NO_MAP).turns[1].weight == weight
    for form, lists in (("openai", "messages"), ("sharegpt", "conversations")):
        record = {lists: messages if form == "openai" else talk}
        columns = pa.RecordBatch.from_pylist([record])
        batched = get(form).read_columns(columns, NO_MAP)
        assert weight or not len(batched.rows)
        assert weight or get(form).json_schemas(record, NO_MAP) is None


def test_arguments_that_are_no_json_stay_text():
    call = {"function": {"name": "python", "arguments": "print(1)"}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]
    conversation = get("openai").read(messages, NO_MAP)
    assert conversation.turns[1].tool_calls[0]["function"]["arguments"] == "print(1)"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "user", "content": "b"}, "no_assistant_turn"),
        ({"role": "assistant", "content": " \n"}, "empty_assistant_turn"),
        ({"role": "assistant", "content": None}, "empty_assistant_turn"),
        ({"role": "robot", "content": "b"}, "unknown_role"),
        ({"role": "assistant", "content": 7}, "wrong_type"),
        ({"role": "assistant", "content": "b", "weight": 0.5}, "fractional_weight"),
        ({"role": "assistant", "content": "b", "tool_calls": [{}]}, "wrong_type"),
        ({"role": "tool", "content": None}, "missing_field"),
        ("b", "wrong_type"),
    ],
)
def test_openai_rejects(message, why):
    assert reason([{"role": "user", "content": "a"}, message], "openai") == why


def test_sharegpt_roles_and_function_calls():
    record = {
        "system": "S",
        "tools": '[{"name": "f", "parameters": {}}]',
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "b"},
        ],
    }
    conversation = get("sharegpt").read(record, NO_MAP)
    assert [turn.role for turn in conversation.turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation.turns[2].tool_calls[0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert conversation.tools[0]["function"]["name"] == "f"


def test_sharegpt_turns_keep_what_stands_beside_role_and_text():
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    spoken = {"from": "gpt", "value": "b", "thinking": "hm", "tool_calls": [call]}
    called = {"from": "function_call", "value": '{"name": "f"}', "reasoning": "so", "weight": 0}
    result = {"from": "tool", "value": "r", "name": "f", "tool_call_id": "1"}
    record = {"conversations": [{"from": "human", "value": "a"}, spoken, called, result]}
    turns = get("sharegpt").read(record, NO_MAP).turns
    assert (turns[1].reasoning, turns[1].tool_calls) == ("hm", (call,))
    assert (turns[2].reasoning, turns[2].tool_calls, turns[2].weight) == ("so", (call,), 0)
    assert (turns[3].name, turns[3].tool_call_id) == ("f", "1")
    called["tool_calls"] = [call]
    assert reason(record, "sharegpt") == "wrong_type"


def test_sharegpt_broken_function_call():
    record = {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{"}]}
    assert reason(record, "sharegpt") == "broken_json"


def test_columns_and_roles_are_mapped():
    record = {"data": {"turns": [{"role": "client", "content": "a"}, {"role": "counselor", "content": "b"}]}}
    fields = FieldMap(columns={"messages": "data.turns"}, roles={"client": "user", "counselor": "assistant"})
    assert turns(record, "openai", fields) == [("user", "a"), ("assistant", "b")]
    assert reason(record, "openai", FieldMap(columns={"messages": "data.turns"})) == "unknown_role"
    assert turns(
        {"q": {"text": "Q"}, "a": ["x", "A"]}, "alpaca", FieldMap(columns={"instruction": "q.text", "output": "a.1"})
    ) == [
        ("user", "Q"),
        ("assistant", "A"),
    ]


def test_keys_inside_of_messages_are_mapped():
    record = {"messages": [{"speaker": "user", "said": "a"}, {"speaker": "assistant", "said": "b"}]}
    fields = FieldMap(columns={"role": "speaker", "content": "said"})
    assert detect([(0, record)], fields, "x").name == "openai"
    assert turns(record, "openai", fields) == [("user", "a"), ("assistant", "b")]


RECORDS = {
    "alpaca": {"instruction": "a", "output": "b"},
    "chatml": {"text": "<|im_start|>user\na<|im_end|>\n"},
    "openai": {"messages": [{"role": "user", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}]},
}


@pytest.mark.parametrize("name", RECORDS)
def test_detect(name):
    assert detect([(0, RECORDS[name])], NO_MAP, "x").name == name


def test_detect_refuses_a_mixture_and_names_the_records():
    sample = [(0, RECORDS["alpaca"]), (3, RECORDS["openai"])]
    with pytest.raises(
        UsageError, match=r"x\.jsonl: mixes formats: alpaca \(record 0\), openai \(record 3\).*--format"
    ):
        detect(sample, NO_MAP, "x.jsonl")


def test_detect_names_the_columns_of_what_it_does_not_know():
    with pytest.raises(UsageError, match=r"x: record 0 has columns foo, bar.*--field"):
        detect([(0, {"foo": 1, "bar": 2})], NO_MAP, "x")
    with pytest.raises(UsageError, match="no readable record"):
        detect([], NO_MAP, "x")


def test_get_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'alpaca'"):
        get("alpacca")


def test_a_field_without_a_value_gives_way_to_another_spelling_of_it():
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    record = {"messages": None, "conversation": talk, "dialog": [], "system": None, "system_prompt": "S"}
    assert [turn.content for turn in get("openai").read(record, FieldMap()).turns] == ["S", "q", "a"]
    record = {"instruction": None, "question": "q", "input": None, "context": "c", "output": "a"}
    assert get("alpaca").read(record, FieldMap()).turns[0].context == "c"
    with pytest.raises(RecordError, match="instruction is NoneType, not text"):
        get("alpaca").read({"instruction": None, "output": "a"}, FieldMap())


def test_keys_of_messages_that_are_not_read_are_named():
    message = {"role": "user", "content": "a", "id": "7", "mask": None, "name": "Ann", "text": "x"}
    record = {"messages": [message, {"role": "assistant", "content": "b", "score": 1}]}
    assert get("openai").unread(record, FieldMap()) == {"id", "score", "text"}
    assert get("openai").unread(record, FieldMap(columns={"content": "text"})) == {"id", "score"}
    assert get("openai").unread({"messages": 5}, FieldMap()) == set()
    turns = [{"from": "human", "value": "a", "id": 1}, {"from": "gpt", "value": "b", "weight": 0}]
    assert get("sharegpt").unread({"conversations": turns}, FieldMap()) == {"id"}
