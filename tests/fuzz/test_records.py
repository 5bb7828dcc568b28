"""Lines of a file, whatever they hold: both paths make the same of them, and nothing unforeseen is raised."""

import json
from functools import cache
from pathlib import Path

import pytest
from fuzzing import corpus, fuzz
from hostile_inputs import RECORDS
from hypothesis import strategies as st
from pipelines import as_lists, make_pipeline
from preprocess_jobs import TOKENIZER

from sft_shards.formats.records import formats
from sft_shards.preprocess.sources import JsonBatch

pytestmark = pytest.mark.unit

WORD = st.sampled_from(
    [
        *(
            "<|im_end|>",
            "<|im_start|>",
            "</s>",
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "\ufdd0",
            "\U000f0000",
        ),
        *(
            "user",
            "assistant",
            "system",
            "tool",
            "human",
            "gpt",
            "a",
            " ",
            "\n",
            "é",
            "\x1b]52;c;QQ==\x07",
            "\u202e",
            "[",
            "{",
            "\0",
        ),
    ]
)
TEXT = st.lists(WORD, max_size=5).map("".join) | st.text(max_size=5)
KEY = st.sampled_from(
    [
        *(
            "role",
            "content",
            "messages",
            "conversations",
            "from",
            "value",
            "instruction",
            "input",
            "output",
            "text",
            "system",
        ),
        *(
            "tools",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "type",
            "parameters",
            "id",
            "tool_call_id",
            "weight",
            "loss",
        ),
        *("reasoning_content", "reasoning", "thinking", "images", "functions", "function_call", "chosen", "history"),
    ]
)
SCALAR = (
    TEXT | st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["[]", '{"a": 1}', "[" * 300, "{"])
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY | TEXT, inner, max_size=4), max_leaves=12
)
CALL = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries({"name": TEXT, "arguments": VALUE})},
    optional={"id": VALUE},
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | SCALAR, "content": TEXT | VALUE},
    optional={
        "tool_calls": st.lists(CALL | VALUE, max_size=2),
        "reasoning_content": TEXT | VALUE,
        "name": VALUE,
        "weight": VALUE,
        "extra": VALUE,
    },
)
RECORD = (
    VALUE
    | st.dictionaries(KEY, VALUE, max_size=5)
    | st.fixed_dictionaries({"messages": st.lists(TURN, max_size=4)}, optional={"tools": VALUE, "system": VALUE})
    | st.fixed_dictionaries(
        {"conversations": st.lists(st.fixed_dictionaries({"from": TEXT, "value": VALUE}), max_size=3)}
    )
    | st.fixed_dictionaries({"instruction": VALUE, "output": VALUE}, optional={"input": VALUE, "history": VALUE})
)
LINE = RECORD.map(lambda record: json.dumps(record).encode()) | st.binary(max_size=40).map(
    lambda line: line.replace(b"\n", b"")
)


@cache
def pipeline(template: str):
    return make_pipeline(TOKENIZER, template)


def check(data: bytes) -> None:
    lines = [line for line in data.split(b"\n") if line.strip()]
    for template in ("chatml", "tokenizer"):
        for form in formats():
            made = pipeline(template)
            raw = JsonBatch.of_texts(0, lines)
            got, expected = made.batch(raw, form), made.reference.batch(raw, form)
            assert as_lists(got) == as_lists(expected), f"{form}, {template}: the paths differ"
            unforeseen = [reject for reject in got.rejects if reject.reason in ("internal_error", "paths_differ")]
            assert not unforeseen, f"{form}, {template}: {unforeseen}"
            assert not [reject for reject in got.rejects if "\ufdd3" in reject.detail]
            assert len(got.rejects) + len(got.trained) == len(lines)


@pytest.mark.parametrize("path", corpus("records"), ids=lambda path: path.name)
def test_kept_inputs(path: Path) -> None:
    check(path.read_bytes())


@pytest.mark.parametrize("name", RECORDS)
def test_hostile_inputs(name: str) -> None:
    check(RECORDS[name]())


def test_new_inputs() -> None:
    assert fuzz("records", check, st.lists(LINE, min_size=1, max_size=4).map(b"\n".join))
