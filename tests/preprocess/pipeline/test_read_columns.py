"""Text-only records read as columns: the same as `json` and the format give for one record at a time."""

import datetime
import functools
import json
import random

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import put_together
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.records.json_schemas import OBJECT_MARK
from sft_shards.preprocess.pipeline.read import read_in_columns
from sft_shards.preprocess.sources import JsonBatch, RawBatch, TableBatch, json_columns, json_rewriting, parse

pytestmark = pytest.mark.unit

TEXT = st.text(st.sampled_from('ab"\\{}[],:\n\u2028é中👍\0'), max_size=6)
ROLE = st.sampled_from(["user", "assistant", "human", "gpt", "system", "robot"])
OTHER = st.sampled_from([{}, {"id": 7}, {"id": "x"}, {"id": [1, {"a": None}]}, {'a"b': 1}, {"messages": None}]) | (
    st.sampled_from(
        ["system", "system_prompt", "tools", "history", "images", "documents", "chat_template_kwargs"]
    ).flatmap(
        lambda name: st.sampled_from(["", "S", [], [["a", "b"]], {}, None, {"x": 1}, [{"x": "y"}], '{"x": 1}']).map(
            lambda value: {name: value}
        )
    )
)


ARGUMENTS = st.sampled_from(
    [
        '{"a": 1}',
        '{"b":1.50, "a":"é"}',
        '{"a": "\\ud83d"}',
        "{}",
        " ",
        "",
        "print(1)",
        "[1]",
        "7",
        '{"a": ' + "[" * 120 + "]" * 120 + "}",
    ]
)
OBJECTS = st.sampled_from(
    [
        {"a": 1},
        {},
        {"a": {"b": [1.50, {"c": None}], "d": {"arguments": {"e": {}}}}, "é": True},
        {'"}': '{"a\\"arguments": {"', "\\": "\n\t\0\u2028é"},
        {"a": "\ud83d"},
        {"arguments": {"arguments": "\\"}, 'x"arguments': {}},
        functools.reduce(lambda inner, _: {"a": inner}, range(6), 1),
        {"a": functools.reduce(lambda inner, _: [inner], range(120), 1)},
    ]
)
FUNCTION = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g.h", "a b", "", "é"])},
    optional={"arguments": ARGUMENTS | OBJECTS | OBJECTS | st.none(), "parameters": st.just("{}"), "x": st.just(1)},
)
CALL = st.fixed_dictionaries(
    {"function": FUNCTION},
    optional={"id": st.sampled_from(["c1", " ", "", "call 2"]) | st.none() | st.just(3), "type": st.just("function")},
)
CALLS = st.lists(
    CALL | CALL | FUNCTION | st.sampled_from([None, "x", {"name": "f", "arguments": "{}"}, {"function": None}]),
    max_size=3,
)
CALL_TEXTS = (CALLS | CALL | FUNCTION).map(json.dumps) | ARGUMENTS | st.just('{"name": "f", "id": "\\ud83d"}')
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "text", "input_text", "image_url", "thinking", "reasoning"])},
    optional={
        "text": TEXT | st.none(),
        "value": TEXT | st.just(7),
        "thinking": TEXT | st.none(),
        "reasoning": TEXT,
        "mood": st.none(),
    },
)
CALL_PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["tool_use", "tool_call"])},
    optional={
        "id": st.sampled_from(["c1", " ", "c2"]) | st.none(),
        "name": st.sampled_from(["f", "g.h", "a b", ""]) | st.none(),
        "input": OBJECTS | OBJECTS | ARGUMENTS | st.none(),
        "arguments": ARGUMENTS | OBJECTS | st.none(),
        "value": CALL_TEXTS | FUNCTION | st.none(),
        "function": FUNCTION | st.none() | st.none(),
        "text": TEXT,
    },
)
THOUGHT = st.builds(
    lambda kind, key, text: {"type": kind, key: text}, *[st.sampled_from(["thinking", "reasoning"])] * 2, TEXT
)
TOOLS = st.lists(
    st.sampled_from(
        [
            {"type": "function", "function": {"name": "f", "description": "d é", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "g"}},
            {"name": "f", "parameters": {}},
            {"type": "function", "function": {"name": "no name", "description": "x"}},
            {"x": "\ud800"},
            7,
        ]
    ),
    max_size=2,
)


def turns(keys):
    message = st.builds(lambda role, text: {keys[0]: role, keys[1]: text}, ROLE, TEXT)
    unsupported = st.sampled_from(
        [{keys[0]: "user"}, {keys[0]: "user", keys[1]: None}, {keys[0]: 1, keys[1]: "x"}, "x", 3, []]
    )
    name = st.sampled_from(
        [
            "weight",
            "loss_weight",
            "train",
            "name",
            "content",
            "value",
            "reasoning_content",
            "thinking",
            "reasoning",
            "tool_call_id",
            "loss",
        ]
    )
    more = st.builds(
        lambda one, key, value: {**one, key: value},
        message,
        name,
        st.none() | st.sampled_from([0, 1, 2, 0.5, True]) | TEXT,
    )
    calling = st.builds(
        lambda text, calls, beside: {keys[0]: "assistant", keys[1]: text, "tool_calls": calls, **beside},
        st.sampled_from([None, "", " ", "x"]),
        CALLS,
        st.sampled_from([{}, {}, {"reasoning_content": "r"}, {"weight": 0}, {"name": "n"}, {"reasoning_content": " "}]),
    )
    saying = st.builds(
        lambda text, beside: {keys[0]: "function_call", keys[1]: text, **beside},
        CALL_TEXTS,
        st.sampled_from([{}, {}, {"reasoning": "r"}, {"weight": 0.0, "train": 1}, {"tool_calls": [{"name": "f"}]}]),
    )
    in_parts = st.builds(
        lambda role, thoughts, parts, calls, beside: {keys[0]: role, keys[1]: [*thoughts, *parts, *calls], **beside},
        ROLE | st.just("assistant"),
        st.lists(THOUGHT, max_size=2),
        st.lists(PART, max_size=3),
        st.lists(CALL_PART, max_size=2) | st.lists(CALL_PART | PART, max_size=2),
        st.sampled_from([{}, {}, {"reasoning": "r"}, {"thinking": "t"}, {"reasoning_content": ""}])
        | CALLS.map(lambda calls: {"tool_calls": calls}),
    )
    calling |= st.builds(
        lambda one, call: {**one, "function_call": call},
        calling | message,
        FUNCTION | FUNCTION | CALL | st.sampled_from([None, {}, "", "x", {"name": "f", "arguments": "{}", "id": "c"}]),
    )
    texts = st.lists(message | message | message | unsupported | more | calling | saying, max_size=4)
    return texts | st.lists(in_parts | in_parts | calling | message, max_size=3)


PROMPTS = st.fixed_dictionaries({}, optional=dict.fromkeys(["system", "system_prompt"], TEXT | st.none()))


IN_JSON = TOOLS | TOOLS.map(json.dumps)
OFFERS = st.just({}) | st.one_of(
    IN_JSON.map(lambda tools: {"tools": tools}),
    IN_JSON.map(lambda tools: {"id": {"tools": [1]}, "tools": tools}),
    IN_JSON.map(lambda tools: {"tools": tools, "id": {"tools": [1]}}),
    IN_JSON.map(lambda tools: {"tools": tools, "id": [1]}),
)


def listed(name, keys):
    """Records whose tools stand in front of the messages, or behind them."""
    made = turns(keys), OTHER, PROMPTS, OFFERS
    behind = st.builds(lambda found, other, more, tools: {name: found, **other, **more, **tools}, *made)
    return behind | st.builds(lambda found, other, more, tools: {**tools, name: found, **other, **more}, *made)


ALPACA = st.builds(
    lambda one, other, more: {**one, **other, **more},
    st.fixed_dictionaries(
        {"instruction": TEXT, "output": TEXT},
        optional={"input": TEXT | st.none() | st.just(3), "context": TEXT | st.none(), "prompt": TEXT},
    )
    | st.fixed_dictionaries({"question": TEXT, "answer": TEXT}, optional={"response": TEXT, "output": st.none()}),
    OTHER,
    PROMPTS,
)
CHATML_TEXT = st.lists(
    st.tuples(ROLE, TEXT, st.sampled_from(["\n", "\n", "", " \n", "x", "<|im_end|>"])), max_size=3
).map(lambda found: "".join(f"<|im_start|>{role}\n{text}<|im_end|>{after}" for role, text, after in found))
CHATML = st.builds(lambda text, other: {"text": text, **other}, CHATML_TEXT, OTHER)
ROUND = st.fixed_dictionaries({"human": TEXT, "assistant": TEXT})
ODD_ROUND = (
    st.fixed_dictionaries(
        {"input": TEXT | st.none(), "output": TEXT | st.just(3)}, optional={"system": TEXT | st.none()}
    )
    | st.builds(
        lambda one, key, value: {**one, key: value},
        ROUND,
        st.sampled_from(["system", "weight", "loss", "output_with_loss", "input", "response", "id"]),
        st.none() | st.sampled_from([0, 1, 2, True, False]) | TEXT,
    )
    | st.sampled_from(["x", 3, {}, {"human": "q"}])
)
ROUNDS = st.lists(ROUND | ROUND | ODD_ROUND, max_size=3)
PLAIN = st.builds(
    lambda one, other: {**one, **other},
    st.fixed_dictionaries({"text": TEXT | st.none() | st.just(3)}, optional={"content": TEXT}),
    OTHER,
)
RECORDS = {
    "openai": listed("messages", ("role", "content")) | listed("conversation", ("role", "content")),
    "openai bare": turns(("role", "content")),
    "sharegpt": listed("conversations", ("from", "value")),
    "alpaca": ALPACA,
    "chatml": CHATML,
    "chatml bare": CHATML_TEXT,
    "rounds": st.builds(lambda found, other, more: {"conversation": found, **other, **more}, ROUNDS, OTHER, PROMPTS),
    "rounds bare": ROUNDS,
    "text": PLAIN,
    "text bare": TEXT,
}


def found_in(form, records, fields=None):
    found = read_in_columns(records, get(form), fields or FieldMap())
    texts = found.texts.to_pylist()
    firsts = found.text_offsets.tolist()
    return {
        row: (found.layouts[number], texts[first:last])
        for row, number, first, last in zip(found.rows.tolist(), found.layout_ids, firsts, firsts[1:], strict=False)
    }


def expected_of(form, values, fields=None):
    """What `json` and the format give for one record at a time; None for what is refused."""
    out = []
    for value in values:
        try:
            conversation = None if isinstance(value, RecordError) else get(form).read(value, fields or FieldMap())
            out.append(conversation)
        except RecordError:
            out.append(None)
    return out


def check(form, records, values, fields=None):
    """Whatever is found is right, but for records with a blank text, of which nothing is said."""
    found, expected = found_in(form, records, fields), expected_of(form, values, fields)
    for row, (roles, texts) in found.items():
        if all(text.strip() for text in texts):
            turns, tools = put_together(roles, texts)
            assert expected[row] == Conversation(turns=tuple(turns), tools=tuple(tools)), values[row]
    return found


def spell(record, ascii_, spaced):
    return json.dumps(record, ensure_ascii=ascii_, separators=(", ", ": ") if spaced else (",", ":")).encode(
        "utf-8", "backslashreplace"
    )


def disturb(line, how):
    """A line that may be broken, or hold less or more than one value."""
    return {
        "cut": line[: len(line) // 2],
        "twice": line + line,
        "twice apart": line + b" " + line,
        "comma": line + b"," + line,
        "spaced": b" \t" + line + b" \r",
        "form feed": line + b"\x0c",
        "utf8": line.replace(b"a", b"\xff"),
        "half": line.replace(b"a", b"\\ud800"),
        "raw": line.replace(b"a", b"\x01"),
        "number": line.replace(b"7", b"NaN"),
        "infinity": line.replace(b"7", b"-Infinity"),
        "short": line.replace(b"7", b"Inf"),
        "point": line.replace(b"7", b"7."),
        "exponent": line.replace(b"7", b"7e999"),
        "digits": line.replace(b"7", b"7" * 5000),
        "zero": line.replace(b"7", b"07"),
        "again": line[:-1] + b"," + line[1:],
        "spelled": line.replace(b'"tools"', b'"t\\u006Fols"'),
        "more": line + b',"more":' + line,
    }[how]


HOW = st.sampled_from(
    [
        "cut",
        "twice",
        "twice apart",
        "comma",
        "spaced",
        "form feed",
        "utf8",
        "half",
        "raw",
        "again",
        "spelled",
        "more",
        "number",
        "infinity",
        "short",
        "point",
        "exponent",
        "digits",
        "zero",
    ]
)


@pytest.mark.parametrize("form", RECORDS)
def test_columns_are_read_as_json_is(form):
    @settings(max_examples=120)
    @given(
        st.lists(RECORDS[form], min_size=1, max_size=5),
        st.booleans(),
        st.booleans(),
        st.lists(st.tuples(st.integers(0, 4), HOW), max_size=2),
    )
    def same(records, ascii_, spaced, disturbed):
        lines = [spell(record, ascii_, spaced) for record in records]
        for at, how in disturbed:
            if at < len(lines):
                lines[at] = disturb(lines[at], how)
        name = form.split()[0]
        read = JsonBatch.of_lines(0, b"\n".join(lines))
        kept = [line for line in lines if not line.isspace() and line]
        assert len(read) == len(kept)
        found = check(name, read, [parse(line) for line in kept])
        alone = [found_in(name, JsonBatch.of_texts(0, [line])) for line in kept]
        assert all(alone[row].get(0, one) == one for row, one in found.items())

    same()


@settings(max_examples=100)
@given(st.sampled_from([name for name in RECORDS if " " not in name]), st.data())
def test_rows_of_a_table_are_read_as_dicts_are(form, data):
    records = data.draw(st.lists(RECORDS[form], min_size=1, max_size=5))
    try:
        batch = pa.RecordBatch.from_pylist(records)
    except (pa.ArrowException, UnicodeEncodeError):
        return  # values of several types in one column, or half a surrogate pair
    for column in (data.draw(st.sampled_from([None, pa.large_string(), pa.dictionary(pa.int8(), pa.string())])),):
        if column is not None:
            names = [
                name for name, kind in zip(batch.schema.names, batch.schema.types, strict=True) if kind == "string"
            ]
            for name in names:
                at = batch.schema.get_field_index(name)
                batch = batch.set_column(at, name, batch.column(at).cast(column))
    check(form, TableBatch(3, batch), batch.to_pylist())


MESSAGE = b'{"role":"user","content":"q"},{"role":"assistant","content":"a"}'
WHOLE = b'{"messages":[' + MESSAGE + b"]}"


@example([WHOLE + WHOLE, b'{"messages":', b"[" + MESSAGE + b"]}"])
@example([WHOLE + WHOLE, b'{"messages":[{"role":"user","content":"q"}', b'{"role":"assistant","content":"a"}]}'])
@example([WHOLE + b"," + WHOLE, b'{"messages":[{"role":"user","content":"q"}', b'{"role":"assistant","content":"a"}]}'])
@given(
    st.lists(
        st.sampled_from([WHOLE, WHOLE + WHOLE, b"{", b"}", b'{"messages":[{"role":"user","content":"q"}', MESSAGE])
    )
)
def test_what_is_spread_over_lines_makes_no_record(lines):
    found = found_in("openai", JsonBatch.of_lines(0, b"\n".join(lines)))
    assert sorted(found) == [at for at, line in enumerate(lines) if line == WHOLE]


USUAL = {
    "openai": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "chatml": {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"},
    "rounds": {"conversation": [{"human": "q", "assistant": "a"}]},
    "text": {"text": "Once upon a time"},
}


def rows_read_together(form, records):
    schemas_for = functools.partial(get(form).json_schemas, fields=FieldMap())
    return [list(chunk.rows) for chunk in json_columns.read_columns(records, schemas_for)]


@pytest.mark.parametrize("form", USUAL)
@pytest.mark.parametrize(
    "more", [{}, {"id": 1}, {"system": "", "history": [], "tools": None}, {"meta": {"a": [1, "x"]}}]
)
def test_the_usual_records_are_read_together(form, more):
    lines = [json.dumps({**USUAL[form], **more}).encode()] * 3
    records = JsonBatch.of_texts(0, lines)
    assert rows_read_together(form, records) == [[0, 1, 2]]
    assert sorted(found_in(form, records)) == [0, 1, 2]
    alone = b"7" if form == "text" else b'"x"'
    assert sorted(found_in(form, JsonBatch.of_texts(0, [*lines, b'{"other": 1}', *lines, alone]))) == [
        0,
        1,
        2,
        4,
        5,
        6,
    ]


@pytest.mark.parametrize("form", ["openai", "sharegpt", "alpaca"])
def test_a_system_prompt_beside_the_conversation_is_its_first_turn(form):
    usual = USUAL[form]
    records = [usual, {**usual, "system": "be kind"}, {**usual, "system": ""}, {**usual, "system_prompt": "be brief"}]
    found = found_in(form, JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records]))
    expected = [[], ["be kind"], [], ["be brief"]]
    assert found == {
        row: (("system",) * len(more) + ("user", "assistant"), [*more, "q", "a"]) for row, more in enumerate(expected)
    }


@pytest.mark.parametrize(
    ("form", "bare"),
    [
        ("openai", USUAL["openai"]["messages"]),
        ("openai", [{**one, "name": "n", "weight": 1} for one in USUAL["openai"]["messages"]]),
        ("chatml", USUAL["chatml"]["text"]),
        ("rounds", USUAL["rounds"]["conversation"]),
        ("text", USUAL["text"]["text"]),
    ],
)
def test_records_that_are_a_bare_value_are_read_together(form, bare):
    records = JsonBatch.of_texts(0, [json.dumps(bare, indent=1).encode()] * 3)
    assert rows_read_together(form, records) == [[0, 1, 2]]
    assert sorted(found_in(form, records)) == [0, 1, 2]


def test_messages_are_read_with_the_fields_that_they_have():
    messages = [{"role": "assistant", "content": "a", "name": "n", "weight": 1}]
    schemas = get("openai").json_schemas({"messages": messages}, FieldMap())
    assert schemas.strict.field("messages").type.value_type.names == ["role", "content", "name", "weight"]
    messages[0]["mood"] = "good"
    assert get("openai").json_schemas({"messages": messages}, FieldMap()).strict is None


@pytest.mark.parametrize(
    ("form", "columns", "record"),
    [
        ("openai", {"messages": "talk", "content": "said"}, {"talk": [{"role": "assistant", "said": "a"}]}),
        ("alpaca", {"instruction": "ask", "output": "a.b"}, {"ask": "q", "a": {"b": "x"}}),
        ("alpaca", {"instruction": "ask"}, {"ask": "q", "instruction": "no", "output": "a"}),
        ("alpaca", {"system": "persona"}, {"persona": "S", "instruction": "q", "output": "a"}),
        ("chatml", {"text": "raw"}, {"raw": USUAL["chatml"]["text"], "text": "no"}),
        ("sharegpt", {"messages": "talk"}, {"talk": USUAL["sharegpt"]["conversations"]}),
        ("rounds", {"messages": "talk", "answer": "said"}, {"talk": [{"input": "q", "said": "a", "output": "no"}]}),
        ("rounds", {"answer": "a.b"}, {"conversation": [{"input": "q", "a": {"b": "x"}}]}),
        ("text", {"text": "raw"}, {"raw": "x", "text": "no"}),
        ("text", {"text": "a.b"}, {"a": {"b": "x"}}),
    ],
)
def test_columns_that_the_user_named(form, columns, record):
    fields = FieldMap(columns=columns)
    found = check(form, JsonBatch.of_texts(0, [json.dumps(record).encode()] * 2), [record] * 2, fields)
    assert bool(found) == (not {"a.b", "persona"} & set(columns.values()))


@pytest.mark.parametrize("form", USUAL)
@pytest.mark.parametrize("value", [b"[" * 500 + b"]" * 500, b"[" * 300_000 + b"]" * 300_000, b"Inf", b"[-Inf ]"])
def test_a_field_that_not_every_parser_accepts_makes_a_record_unsupported(form, value):
    unsupported = json.dumps(USUAL[form])[:-1].encode() + b', "x": ' + value + b"}"
    usual = json.dumps({**USUAL[form], "x": "Inf or more Information, Infinity: {" + "[{" * 20}).encode()
    assert sorted(found_in(form, JsonBatch.of_texts(0, [usual, unsupported, usual]))) == [0, 2]
    assert found_in(form, JsonBatch.of_texts(0, [unsupported])) == {}


CALLING = {
    "messages": [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "r", "tool_call_id": "c"},
        {"role": "assistant", "content": "a"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}],
}
IN_PARTS = {
    "messages": [
        {"role": role, "content": [{"type": "text", "text": text} for text in texts]}
        for role, texts in (("user", "q"), ("assistant", "ab"))
    ]
}


@pytest.mark.parametrize("table", [False, True])
def test_calls_and_their_tools_are_read_together(table):
    records = [CALLING, {"messages": USUAL["openai"]["messages"]}, CALLING]
    if table:
        records = [{**record, "tools": json.dumps(record.get("tools", []))} for record in records]
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
    else:
        raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
        assert rows_read_together("openai", raw) == [[0, 1, 2]]
    found = check("openai", raw, records)
    assert sorted(found) == [0, 1, 2]
    offer = 'offer={"type": "function", "function": {"name": "\\u0000text", "description": "\\u0000text"}}'
    labels = ("user", "assistant=null", "call", "call_id", "arguments={}", "tool", "tool_call_id", "assistant")
    assert found[0] == ((offer, "text", "text", *labels), ["f", "d", "q", "f", "c", "r", "c", "a"])
    assert found[1] == (("user", "assistant"), ["q", "a"])


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("spaced", [False, True])
def test_tools_are_read_wherever_they_stand(spaced, as_text):
    tools = json.dumps(CALLING["tools"]) if as_text else CALLING["tools"]
    own, deeper = {"messages": CALLING["messages"]}, {"more": {"tools": [1], "n": 1}, "list": [{"tools": [1]}]}
    for record in (
        {"tools": tools, **own},
        {**own, "tools": tools},
        {"id": 1, "tools": tools, **own},
        {**own, "tools": tools, "id": 1},
        {**deeper, "tools": tools, **own},
        {**own, "tools": tools, **deeper},
        {"tools": tools, **own, **deeper},
    ):
        lines = [spell(record, True, spaced)] * 3
        assert len(check("openai", JsonBatch.of_texts(0, lines), [record] * 3)) == 3, record


def test_tools_in_a_tables_own_types_are_read_together():
    """Tool g has no description, which is null in the table. What no text in JSON can hold makes a record unsupported."""
    tools = [CALLING["tools"][0], {"type": "function", "function": {"name": "g", "description": None}}]
    records = [{**CALLING, "tools": tools}, {**CALLING, "tools": []}, {**CALLING, "tools": None}] * 2
    raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
    found = check("openai", raw, raw.columns.to_pylist())
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert found[3][0][3] == 'offer={"type": "function", "function": {"name": "\\u0000text", "description": null}}'
    deep = functools.reduce(lambda inner, _: [inner], range(120), 1)
    for odd, rows in ((datetime.date(2024, 1, 1), [1, 2]), ({"a": deep}, [1, 2]), ({"a": "[" * 200}, [0, 1, 2])):
        records[0]["tools"] = [{"type": "function", "function": {"name": "f", "description": "d", "x": odd}}]
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records[:3]))
        assert sorted(found_in("openai", raw)) == rows


@pytest.mark.parametrize("table", [False, True])
def test_calls_that_are_turns_are_read_together(table):
    call = '{"name": "f", "arguments": {"a":1}}'
    turns = [("human", "q"), ("function_call", call), ("observation", "r"), ("function_call", f"[{call}, {call}]")]
    record = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode()] * 2)
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist([record] * 2))
    found = check("sharegpt", raw, [record] * 2)
    once = ("call", "arguments")
    labels = ("user", "assistant=null", *once, "tool", "assistant=null", *once, *once)
    assert found[1] == (labels, ["q", *["f", '{"a": 1}'], "r", *["f", '{"a": 1}'] * 2])


@pytest.mark.parametrize("table", [False, True])
def test_every_spelling_of_a_weight_is_read_together(table):
    weights = [{"weight": 0}, {"loss_weight": 0.0}, {"train": 0, "weight": None}, {"weight": 1, "train": 0}]
    records = [
        {"messages": [{**one, "weight": None, "loss_weight": None, **own} for one in USUAL["openai"]["messages"]]}
        for own in weights
    ]
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist([{"messages": record["messages"]} for record in records]))
    assert [found[0] for found in check("openai", raw, records).values()] == [
        ("user", "weight=0", "assistant", "weight=0"),
        ("user", "weight=0", "assistant", "weight=0"),
        ("user", "weight=0", "assistant", "weight=0"),
        ("user", "assistant"),
    ]


@pytest.mark.parametrize("table", [False, True])
def test_arguments_that_are_objects_are_read_together(table):
    record = json.loads(json.dumps(CALLING))
    record["messages"][1]["tool_calls"][0]["function"]["arguments"] = {"a": {"b": 1}, "c": [2.0]}
    records = [record, {"messages": USUAL["openai"]["messages"]}, record]
    if table:
        records = [{"messages": record["messages"]} for record in records]
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
        records = raw.columns.to_pylist()
    else:
        raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
        assert rows_read_together("openai", raw) == [[0, 1, 2]]
    found = check("openai", raw, records)
    assert sorted(found) == [0, 1, 2]
    assert found[2][1][-5:] == ["c", '{"a": {"b": 1}, "c": [2.0]}', "r", "c", "a"]


def test_objects_among_texts_are_read_together_once_one_was_seen():
    """Each record that is looked at first is one of another kind than the others."""
    calling = {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}]}
    lines = [json.dumps(record).encode() for record in [USUAL["openai"], calling] * 500]
    assert sum(map(len, rows_read_together("openai", JsonBatch.of_texts(0, lines)))) == 1000
    assert len(rows_read_together("openai", JsonBatch.of_texts(0, lines))) < 8


KEYS = st.sampled_from(["arguments", "a", 'a"arguments', "arguments\\"]) | TEXT
JSON = st.none() | st.booleans() | st.integers() | TEXT
for _ in range(4):
    JSON = JSON | st.lists(JSON, max_size=3) | st.dictionaries(KEYS, JSON, max_size=3)


def with_values(value, key, kind, change):
    """A value of JSON in which those of a key and a type are others, and of these nothing else."""
    if isinstance(value, list):
        return [with_values(one, key, kind, change) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: change(own) if name == key and isinstance(own, kind) else with_values(own, key, kind, change)
        for name, own in value.items()
    }


@settings(max_examples=300)
@given(JSON, st.booleans(), st.booleans())
@example({'a"arguments': {"arguments": {}}}, False, False)
def test_objects_become_texts_and_nothing_else_changes(value, ascii_, spaced):
    made = json_rewriting.with_objects_as_texts(spell(value, ascii_, spaced), "arguments")
    expected = with_values(value, "arguments", dict, lambda own: f"{OBJECT_MARK}{json.dumps(own, ensure_ascii=False)}")
    assert json.loads(bytes(made)) == expected


@pytest.mark.parametrize("depth", [1, 5, 6, 99])
def test_objects_of_any_depth_become_texts(depth):
    deep = functools.reduce(lambda inner, _: {'a"}': inner, "arguments": "}"}, range(depth), {})
    value = {"arguments": deep, "more": [{"arguments": {"b": 1}}]}
    made = json.loads(bytes(json_rewriting.with_objects_as_texts(json.dumps(value).encode(), "arguments")))
    assert made["arguments"] == OBJECT_MARK + json.dumps(deep)
    assert made["more"] == [{"arguments": OBJECT_MARK + '{"b": 1}'}]


@settings(max_examples=200)
@given(JSON, st.booleans(), st.booleans())
def test_texts_become_lists_of_a_part_and_nothing_else_changes(value, ascii_, spaced):
    made = json_rewriting.with_texts_as_parts(spell(value, ascii_, spaced), "a")
    assert json.loads(made) == with_values(value, "a", str, lambda own: [{"type": "text", "text": own}])


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("more", [{}, {"id": 1}])
def test_contents_as_texts_and_as_parts_are_read_together_once_both_were_seen(within, more):
    """Whether one record has both, or one has texts and another lists of parts."""
    texts = [USUAL["openai"]["messages"], [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]]
    parts = [[{**one, "content": [{"type": "text", "text": one["content"]}]} for one in own] for own in texts]
    records = [[texts[0][0], parts[0][1]], [parts[1][0], texts[1][1]]] if within else [texts[0], parts[1]]
    lines = [json.dumps({"messages": own, **more}).encode() for own in records * 500]
    raw = JsonBatch.of_texts(0, lines)
    assert sum(map(len, rows_read_together("openai", raw))) == 1000
    assert len(rows_read_together("openai", raw)) < 8
    found = check("openai", raw, [json.loads(line) for line in lines])
    assert found[998] == (("user", "assistant"), ["q", "a"])
    assert found[999] == (('user=""', "assistant"), ["b"])


@pytest.mark.parametrize("key", ["text", "value", "name"])
def test_contents_in_a_key_that_parts_have_too(key):
    fields = FieldMap(columns={"content": key})
    part = {"type": "text", "text": "p"}
    records = [{"messages": [{"role": "assistant", key: own}]} for own in ("a", [part], "b", [part, part])]
    records.append({"messages": [{"role": "user", key: "q"}, {"role": "assistant", key: [part]}]})
    check("openai", JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records]), records, fields)


@pytest.mark.parametrize(
    "object_", [b"{a}", b"{1: 2}", b'{"a": Inf}', b'{"a": 1,}', b'{"a": "\n"}', b'{"a": 01}', b'{"a": "\xff"}', b'{"a"']
)
def test_an_object_that_is_no_json_makes_a_record_unsupported(object_):
    """In the arguments of a call, and where nothing is read."""
    line = json.dumps({**CALLING, "more": {"arguments": 7}}).encode()
    usual = line.replace(b'"arguments": "{}"', b'"arguments": {}')
    lines = [usual, line.replace(b'"{}"', object_), line.replace(b"7", object_), usual]
    assert sorted(found_in("openai", JsonBatch.of_texts(0, lines))) == [0, 3]


def test_a_text_named_as_arguments_are_is_no_object():
    fields = FieldMap(columns={"content": "arguments"})
    call = {"function": {"name": "f", "arguments": {}}}
    records = [{"messages": [{"role": "assistant", "arguments": own, "tool_calls": [call]}]} for own in ("a", {"a": 1})]
    check("openai", JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records]), records, fields)


@pytest.mark.parametrize("table", [False, True])
def test_text_parts_are_read_together(table):
    raw = JsonBatch.of_texts(0, [json.dumps(IN_PARTS).encode()] * 2)
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist([IN_PARTS] * 2))
    else:
        assert rows_read_together("openai", raw) == [[0, 1]]
    assert found_in("openai", raw) == dict.fromkeys((0, 1), (("user", "assistant"), ["q", "ab"]))


@pytest.mark.parametrize("table", [False, True])
def test_reasoning_parts_are_read_together(table):
    contents = [
        [{"type": "thinking", "thinking": "t"}, {"type": "reasoning", "value": "r"}, {"type": "text", "value": "a"}],
        [{"type": "text", "text": "b"}, {"type": "text", "value": "c"}],
        [{"type": "reasoning", "text": "d"}],
    ]
    question = {"role": "user", "content": [{"type": "text", "value": "q"}]}
    records = [{"messages": [question, {"role": "assistant", "content": content}]} for content in contents]
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
    else:
        assert rows_read_together("openai", raw) == [[0, 1, 2]]
    assert check("openai", raw, records) == {
        0: (("user", "assistant", "reasoning"), ["q", "a", "tr"]),
        1: (("user", "assistant"), ["q", "bc"]),
        2: (("user", 'assistant=""', "reasoning"), ["q", "d"]),
    }


@pytest.mark.parametrize("table", [False, True])
def test_calls_in_parts_are_read_together(table):
    said = {"type": "text", "text": "a"}
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {"b": {"c": [1]}}}
    beside = {"type": "tool_call", "name": "g", "arguments": '{"d":2}'}
    value = {"type": "tool_call", "value": '[{"name": "h", "arguments": {}}, {"name": "i", "id": "j"}]'}
    contents = [[said, used, beside], [value], [said], [{"type": "thinking", "thinking": "t"}, beside, value]]
    question = {"role": "user", "content": [{"type": "text", "text": "q"}]}
    records = [{"messages": [question, {"role": "assistant", "content": content}]} for content in contents]
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
        records = raw.columns.to_pylist()
    else:
        assert sum(map(len, rows_read_together("openai", raw))) == 4
    first, direct = ("call", "call_id", "arguments"), ("call", "arguments")
    values = ("call", "arguments={}", "call", "call_id", "arguments={}")
    assert check("openai", raw, records) == {
        0: (("user", "assistant", *first, *direct), ["q", "a", "f", "c", '{"b": {"c": [1]}}', "g", '{"d": 2}']),
        1: (("user", "assistant=null", *values), ["q", "h", "i", "j"]),
        2: (("user", "assistant"), ["q", "a"]),
        3: (("user", "assistant=null", "reasoning", *direct, *values), ["q", "t", "g", '{"d": 2}', "h", "i", "j"]),
    }


@pytest.mark.parametrize("table", [False, True])
def test_bare_calls_are_read_together_with_others(table):
    calls = [{"name": "f", "arguments": {"a": 1}}, {"id": "c", "function": {"name": "g", "arguments": {"a": 2}}}]
    records = [{"messages": [{"role": "assistant", "content": "a", "tool_calls": own}]} for own in (calls, calls[:1])]
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
        records = raw.columns.to_pylist()
    else:
        assert rows_read_together("openai", raw) == [[0, 1]]
    found = check("openai", raw, records)
    bare = ("assistant", "call", "arguments")
    assert found[0] == ((*bare, "call", "call_id", "arguments"), ["a", "f", '{"a": 1}', "g", "c", '{"a": 2}'])
    assert found[1] == (bare, ["a", "f", '{"a": 1}'])


@pytest.mark.parametrize("table", [False, True])
def test_function_calls_are_read_together(table):
    """A record with both forms in different messages as well; a message with both has the older one alone."""
    calls = [
        {"function_call": {"name": "f", "arguments": '{"a":1}'}},
        {"tool_calls": [{"function": {"name": "g", "arguments": '{"b": 2}'}}]},
        {
            "tool_calls": [{"function": {"name": "g", "arguments": "{}"}}],
            "function_call": {"name": "h", "arguments": ""},
        },
    ]
    question, empty = {"role": "user", "content": "q"}, {"function_call": None, "tool_calls": None}
    records = [
        {"messages": [question, *({"role": "assistant", "content": None, **empty, **one} for one in own)]}
        for own in (calls[:1], calls[:2], calls[2:])
    ]
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
    if table:
        raw = TableBatch(0, pa.RecordBatch.from_pylist(records))
        records = raw.columns.to_pylist()
    else:
        assert rows_read_together("openai", raw) == [[0, 1, 2]]
    once = ("assistant=null", "call", "arguments")
    assert check("openai", raw, records) == {
        0: (("user", *once), ["q", "f", '{"a": 1}']),
        1: (("user", *once, *once), ["q", "f", '{"a": 1}', "g", '{"b": 2}']),
    }
    assert expected_of("openai", records)[2].turns[1].tool_calls[0]["function"] == {"name": "h", "arguments": {}}


@pytest.mark.parametrize(
    "beside", [{"reasoning": "r"}, {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]
)
def test_only_openais_messages_have_a_content_that_is_null(beside):
    """Beside reasoning or calls."""
    for form, keys, rows in (("openai", ("role", "content"), [0, 1]), ("sharegpt", ("from", "value"), [1])):
        turns = [{keys[0]: "assistant", keys[1]: text, **beside} for text in (None, "a")]
        records = [{"messages": [turn]} for turn in turns]
        raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
        assert sorted(check(form, raw, records)) == rows
        assert [one is not None for one in expected_of(form, records)] == [row in rows for row in range(2)]


@pytest.mark.parametrize("rounds", [[{}], [{"human": "q", "assistant": "a", "weight": ""}]])
def test_rounds_of_a_table_without_any_field_or_with_a_weight_that_is_a_text(rounds):
    record = {"conversation": rounds}
    assert check("rounds", TableBatch(0, pa.RecordBatch.from_pylist([record])), [record]) == {}


@pytest.mark.parametrize("role", ["user", "tool", "system"])
def test_an_empty_content_is_read_together_with_others(role):
    records = [
        {"messages": [{"role": role, "content": text}, {"role": "assistant", "content": "a"}]} for text in ("", "b", "")
    ]
    raw = JsonBatch.of_texts(0, [json.dumps(record).encode() for record in records])
    assert rows_read_together("openai", raw) == [[0, 1, 2]]
    empty = ((f'{role}=""', "assistant"), ["a"])
    assert check("openai", raw, records) == {0: empty, 1: ((role, "assistant"), ["b", "a"]), 2: empty}


UNSUPPORTED = [
    {"messages": [{"role": "user", "content": "q", "weight": 0}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": "q", "weight": 0.5}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": ["q"]}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": []}]},
    {**USUAL["openai"], "tools": [{"name": "x"}]},
    {"messages": "none"},
    ["bare"],
    7,
]


@pytest.mark.parametrize("wording", ["known", "unknown"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1])
@pytest.mark.parametrize("more", [{}, {"id": 1}])
def test_an_unsupported_record_costs_no_other(monkeypatch, share, more, wording):
    """Whether or not the row at which pyarrow stopped can be read off its message."""
    if wording == "unknown":
        monkeypatch.setattr(json_columns, "failed_row", lambda message: None)
    dice = random.Random(1)
    lines, text_only = [], []
    for number in range(3000):
        if dice.random() < share:
            line = json.dumps(dice.choice(UNSUPPORTED)).encode()
            lines.append(dice.choice([line, line, line[:-1], line.replace(b"q", b"\xff"), b"{}"]))
        else:
            text_only.append(number)
            lines.append(json.dumps({**USUAL["openai"], **more}).encode())
    found = found_in("openai", JsonBatch.of_texts(0, lines))
    assert [row for row, one in found.items() if one == (("user", "assistant"), ["q", "a"])] == text_only
    assert check("openai", JsonBatch.of_texts(0, lines[:500]), [parse(line) for line in lines[:500]]) is not None


def test_other_records_are_left_alone():
    assert found_in("openai", RawBatch(0, [USUAL["openai"], RecordError("too_large", "x")])) == {}
    assert found_in("openai", JsonBatch.of_texts(0, [])) == {}
    assert found_in("openai", JsonBatch.of_lines(0, b"")) == {}
