"""JSON texts that are taken apart by their outlines: the same as `json` gives for one at a time."""

import json

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sft_shards.formats import json_outlines
from sft_shards.formats.json_outlines import take_json_apart
from sft_shards.formats.layouts import put_together
from sft_shards.formats.records import FieldMap
from sft_shards.formats.records.tool_json import ARGUMENTS_RULE, TOOLS_RULE
from sft_shards.formats.records.tools import read_tools

pytestmark = pytest.mark.unit

WORDS = st.text(st.sampled_from('ab"\\{}[],:/ \n\t\u2028\u3000\xa0é中👍\0\x7f'), max_size=6)
KEYS = st.sampled_from(["type", "name", "a", "", 'a"', "type\\", "é"])
VALUES = st.none() | st.booleans() | st.sampled_from([0, -1, 1.5, 1e300, 10**20]) | WORDS
for _ in range(3):
    VALUES = VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=3)
SPELLINGS = st.sampled_from(
    [
        {},
        {"ensure_ascii": False},
        {"separators": (",", ":")},
        {"indent": 2, "ensure_ascii": False},
        {"separators": (" ,\t", " :\r\n")},
    ]
)
BROKEN = st.sampled_from(
    [
        '{"a": "b}',
        '{"a": "\\x"}',
        '{"a": "\n"}',
        '{"a": "b",}',
        '{"a": "b"} {"a": "c"}',
        '{"a": "b", "a": "c"}',
        '{"b": "1", "a": 1, "c": "2", "a": "3"}',
        '{"a": 1, "b": "x", "a": "y"}',
        '{"a": "\\ud83d"}',
        '{"a": "\\ud83d\\ude00", "b": "\\u00e9\\/"}',
        '{"a": 1.50, "b": "x"}',
        '{"a": 01}',
        '{"a": NaN}',
        '{"a" : "x" , "b"   :   [ "y" ] }',
        '"',
        '""',
        '"a"',
        ':"',
        ', "a"]',
        "\\",
        '\\"a": "b"}',
        "",
        " ",
        "print('x')",
        '[{"name": "f", "description": " "}]',
        '[{"name": "f", "description": "\\n"}]',
        '[{"name": "f", "description": "\\nx"}, {"name": "f g"}]',
        '[{"name": "f", "function": {"name": "g"}, "parameters": {"type": "object", "required": ["x"]}}]',
        '[{"type": "code_interpreter"}]',
    ]
)
TEXTS = st.builds(lambda value, how: json.dumps(value, **how), VALUES, SPELLINGS) | BROKEN
TOOL = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g.h", "no name", ""]) | WORDS},
    optional={"description": WORDS, "parameters": VALUES, "type": st.just("function"), "strict": VALUES, "x": VALUES},
)
TOOLS = st.lists(TOOL | TOOL.map(lambda one: {"type": "function", "function": one}) | VALUES, max_size=3)


def apart(texts, rule):
    """Labels and texts of each, or None."""
    found = take_json_apart(pa.array(texts, pa.string()), rule)
    rest = iter(found.texts.to_pylist())
    out = []
    for number, count in zip(found.layout_ids.tolist(), found.counts.tolist(), strict=True):
        own = [next(rest) for _ in range(count)]
        out.append(None if number < 0 else (found.layouts[number], own))
    assert next(rest, None) is None
    return out


def of_arguments(text):
    """What `json` says of a text that are arguments."""
    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError:
        return ("arguments_text",), [text]
    if isinstance(value, str):
        return (("arguments_text",), [value]) if value.strip() else None
    if not isinstance(value, dict):
        return None
    return (("arguments",), [json.dumps(value, ensure_ascii=False)]) if value else (("arguments={}",), [])


@settings(max_examples=400)
@given(st.lists(TEXTS, min_size=1, max_size=8))
@example(['{"a": "x"}', '{"a": "y"}', '{"a": "\\u00e9\\n"}', '{"a": "\\ud83d"}', '{"a": "z"}'])
@example(['{"a": "x', '{"a": "y"}', '"z"}'])
def test_arguments_are_taken_apart_as_json_is_read(texts):
    for text, found in zip(texts, apart(texts, ARGUMENTS_RULE), strict=True):
        expected = of_arguments(text)
        if expected is not None and '\\ud83d"' in text:
            expected = None
        assert found == expected, text


@settings(max_examples=400)
@given(
    st.lists(st.builds(lambda value, how: json.dumps(value, **how), TOOLS, SPELLINGS) | TEXTS, min_size=1, max_size=6)
)
def test_tools_are_put_together_again_as_json_is_read(texts):
    for text, found in zip(texts, apart(texts, TOOLS_RULE), strict=True):
        assert found == TOOLS_RULE.take_apart(text)
        if found is not None:
            assert put_together(*found) == (
                [],
                list(read_tools({"tools": json.loads(text if text.strip() else "[]")}, FieldMap())),
            )


@pytest.mark.parametrize("rule", [ARGUMENTS_RULE, TOOLS_RULE])
def test_texts_of_one_outline_are_looked_at_once(monkeypatch, rule):
    texts = [
        json.dumps([{"name": f"f{number}", "description": f"d\n{number}", "parameters": {"a": f"é {number}"}}])
        for number in range(100)
    ]
    if rule is ARGUMENTS_RULE:
        texts = [text[1:-1] for text in texts]
    json_outlines._planned.cache_clear()
    looked_at = []
    rule = json_outlines.Rule(
        take_apart=lambda text: looked_at.append(text) or rule_of(text), names=rule.names, with_types=rule.with_types
    )
    rule_of = (TOOLS_RULE if rule.with_types else ARGUMENTS_RULE).take_apart
    assert apart(texts, rule) == list(map(rule_of, texts))
    assert len(looked_at) == 1
