"""Reading JSON straight into typed objects: what it gives is what `json` and one record at a time give."""

import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from formats.records import FieldMap, get
from preprocess.plainly import _typed, read_plain

TEXT = st.text(st.sampled_from('ab"\\{}[],:\n\u2028é中👍\0'), max_size=6)
ROLE = st.sampled_from(["user", "assistant", "human", "gpt", "system", "robot"])
OTHER = st.sampled_from([{}, {}, {}, {"id": 7}, {"id": [1, {"a": None}]}, {"system": "S"}, {"tools": "[]"}, {'a"b': 1}])


def turns(keys):
    message = st.builds(lambda role, text: {keys[0]: role, keys[1]: text}, ROLE, TEXT)
    odd = st.sampled_from([{keys[0]: "user"}, {keys[0]: "user", keys[1]: None}, {keys[0]: 1, keys[1]: "x"}, "x", 3, []])
    name = st.sampled_from(["weight", "name", "content", "value"])
    more = st.builds(lambda one, key, value: {**one, key: value}, message, name, st.none() | st.just(1) | TEXT)
    return st.lists(message | message | message | odd | more, max_size=4)


def listed(name, keys):
    return st.builds(lambda found, other: {name: found, **other}, turns(keys), OTHER)


ALPACA = st.builds(
    lambda one, other: {**one, **other},
    st.fixed_dictionaries(
        {"instruction": TEXT, "output": TEXT},
        optional={"input": TEXT | st.none() | st.just(3), "context": TEXT, "history": st.just([])},
    ),
    OTHER,
)
CHATML = st.builds(
    lambda found, other: {"text": "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in found), **other},
    st.lists(st.tuples(ROLE, TEXT), max_size=3),
    OTHER,
)
RECORDS = {
    "openai": listed("messages", ("role", "content")) | listed("conversation", ("role", "content")),
    "sharegpt": listed("conversations", ("from", "value")),
    "alpaca": ALPACA,
    "chatml": CHATML,
}


def one_by_one(form, lines):
    """Rows, shapes and texts, by the slow parser; what orjson alone refuses is for the careful way."""
    rows, shapes, texts = [], [], []
    for row, line in enumerate(lines):
        try:
            value = json.loads(line.decode("utf-8"))
            orjson.loads(line)
        except ValueError:
            continue
        found = get(form).plain([value], FieldMap())
        if found.rows:
            rows.append(row)
            shapes += found.shapes
            texts += found.texts
    return rows, shapes, texts


def spell(record, ascii_, spaced):
    return json.dumps(record, ensure_ascii=ascii_, separators=(", ", ": ") if spaced else (",", ":")).encode()


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
        "zero": line.replace(b"7", b"07"),
        "again": line[:-1] + b"," + line[1:],
    }[how]


HOW = st.sampled_from(
    ["cut", "twice", "twice apart", "comma", "spaced", "form feed", "utf8", "half", "raw", "number", "zero", "again"]
)


@pytest.mark.parametrize("form", RECORDS)
def test_typed_objects_are_read_as_json_is(form):
    @settings(max_examples=300)
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
        found = read_plain(get(form), lines, FieldMap())
        assert (list(found.rows), list(found.shapes), found.texts) == one_by_one(form, lines)

    same()


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
    found = read_plain(get("openai"), lines, FieldMap())
    assert (list(found.rows), list(found.shapes), found.texts) == one_by_one("openai", lines)


@pytest.mark.parametrize(
    ("form", "record"),
    [
        ("openai", {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "id": 1}),
        ("sharegpt", {"id": "x", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}),
        ("chatml", {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"}),
    ],
)
def test_the_usual_records_are_read_typed(form, record):
    lines = [json.dumps(record).encode()] * 3
    assert _typed(get(form), lines) is not None
    assert list(read_plain(get(form), lines, FieldMap()).rows) == [0, 1, 2]
    assert _typed(get(form), [*lines, b'{"other": 1}']) is None
    assert _typed(get(form), [*lines, {"a": "dict"}]) is None
