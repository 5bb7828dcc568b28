"""Arguments of templates as they are written in a call and in a record; what cannot be meant is one line that says why."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.template_arguments import canonical, parse_arguments, read_arguments

pytestmark = pytest.mark.unit

NAME = st.sampled_from(["enable_thinking", "reasoning_effort", "thinking", "x", "date_string"])
VALUE = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(arguments=st.dictionaries(NAME, VALUE))
def test_what_json_can_say_is_taken_from_a_call_and_from_a_record(arguments):
    words = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
    assert parse_arguments(words, "--template-arg") == arguments
    assert read_arguments(arguments, "chat_template_kwargs") == arguments
    assert read_arguments(json.dumps(arguments), "chat_template_kwargs") == arguments
    assert json.loads(canonical(arguments)) == arguments


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("thinking", "--template-arg thinking: must have the form NAME=JSON"),
        ("=1", "must have the form NAME=JSON"),
        ("effort=high", """a text needs quotes of its own: --template-arg 'effort="high"'"""),
        ("thinking=True", "not JSON; write thinking=true"),
        ("x=[1,", "not JSON (Expecting value)"),
        ("x=", "not JSON (Expecting value)"),
        ("x=NaN", "a text needs quotes"),
        ("x=" + "[" * 400 + "]" * 400, "nested more than 200 deep"),
        ("x=" + "[" * 100_000, "not JSON"),
        ("x=null", "--template-arg x: null is as good as not given"),
        ("messages=[]", "--template-arg messages: has a meaning of its own"),
        ("bos_token=1", "--template-arg bos_token: has a meaning of its own"),
        ("a-b=1", "--template-arg 'a-b': is no name"),
    ],
    ids=lambda text: text[:20],
)
def test_a_word_that_is_no_argument(word, message):
    with pytest.raises(UsageError) as caught:
        parse_arguments([word], "--template-arg")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (["enable_thinking"], "wrong_type", "chat_template_kwargs is list, not an object"),
        (True, "wrong_type", "chat_template_kwargs is bool"),
        ("[]", "wrong_type", "chat_template_kwargs is list"),
        ("{", "broken_json", "chat_template_kwargs: "),
        ({"tools": []}, "wrong_type", "chat_template_kwargs: tools: has a meaning of its own"),
        ({"a b": 1}, "wrong_type", "'a b': is no name"),
        ({"x": float("inf")}, "wrong_type", "a value is not JSON"),
        ({"x": json.loads("[" * 300 + "]" * 300)}, "nested_too_deeply", "200 deep"),
    ],
    ids=str,
)
def test_a_record_that_gives_something_else(value, reason, detail):
    with pytest.raises(RecordError) as caught:
        read_arguments(value, "chat_template_kwargs")
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True)


def test_null_is_not_given():
    for value in (None, "", "null", {}, {"enable_thinking": None}):
        assert read_arguments(value, "chat_template_kwargs") == {}
    assert read_arguments({"a": None, "b": 0}, "chat_template_kwargs") == {"b": 0}
