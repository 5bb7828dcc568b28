"""Chat templates that go through the arguments of a call, each in the manner of a published one, and such arguments."""

from hypothesis import strategies as st

TURNS = """
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}
    {%- for call in m.tool_calls or [] %}
        {%- set call = call.function %}
        CALL
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def call_as(source):
    """A template that writes `call`, a call's function, by its name and in this way."""
    return TURNS.replace("CALL", "{{- call.name }}" + source)


KEYS_AND_VALUES = call_as(
    """{{- '<tool_call>' }}{% set _args = call.arguments %}
{% for k, v in _args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>""",
)
INVOKED = call_as(
    """{{- '<invoke>' }}
        {% set _args = call.arguments %}
        {%- for k, v in _args.items() %}
        {{- '<parameter name="' + k + '">' }}
        {{- v | tojson(ensure_ascii=False) if v is not string else v }}
        {{- '</parameter>' }}
        {% endfor %}
        {{- '</invoke>\\n' }}""",
)
FUNCTIONS = call_as(
    """{{- '\\n<function>\\n' }}
        {%- if call.arguments is defined %}
            {%- for args_name, args_value in call.arguments|items %}
                {{- '<parameter=' + args_name + '>\\n' }}
                {%- set args_value = args_value | tojson | safe if args_value is mapping or (args_value is sequence and args_value is not string) else args_value | string %}
                {{- args_value }}
                {{- '\\n</parameter>\\n' }}
            {%- endfor %}
        {%- endif %}
        {{- '</function>' }}""",
)
PRINTED = call_as(
    """{%- macro written(key, value) %}{{- '<' ~ key ~ '>' -}}
            {%- set value = value | tojson | safe if value is mapping else value | string %}{{- value ~ '\\n' }}{% endmacro %}
        {%- for key in call.arguments %}
            {{- written(key | trim, call.arguments[key]) }}
            {%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}
        {{- call.arguments | tojson if call.arguments | length > 1 }}""",
)
SORTED = call_as(
    """{%- macro written(value) %}
            {%- if value is string %}{{- '<|"|>' + value + '<|"|>' }}
            {%- elif value is boolean %}{{- 'true' if value else 'false' }}
            {%- elif value is mapping or value is sequence %}{{- value | tojson }}
            {%- else %}{{- value }}{% endif %}
        {%- endmacro %}
        {%- if call['arguments'] is mapping %}
            {%- for key, value in call['arguments'] | dictsort %}{{- key }}:{{- written(value) }}{% if not loop.last %},{% endif %}
            {%- endfor %}
        {%- endif %}""",
)
LOOKING = {"keys and values": KEYS_AND_VALUES, "invoked": INVOKED, "functions": FUNCTIONS, "printed": PRINTED}
LOOKING["sorted"] = SORTED
"""In the manner of GLM 4.6, MiniMax M2, Qwen3.5, Qwen3-Coder and Gemma 4."""

SPACES = st.sampled_from(["", " ", "\n", "\n\n ", "\u3000", "\x85"])
WORDS = st.sampled_from(
    [
        "Basel",
        "é",
        "日本",
        '"',
        "\\",
        "\\n",
        "1",
        "-0.0",
        "true",
        "null",
        '{"a": 1}',
        "[1, 2]",
        "a\u2028b",
        "\x00",
        "👩",
        "'",
    ]
)
BAD = st.sampled_from(["<|im_end|>", "</think>", "\ufdd0", "</arg_value>", "<|im_start|>"])
TEXT = st.tuples(SPACES, st.lists(WORDS | st.text(max_size=4), max_size=3).map("".join), SPACES).map("".join)
ANY_TEXT = st.one_of(TEXT, TEXT, TEXT, TEXT, st.tuples(TEXT, BAD, TEXT).map("".join))
NUMBER = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e22, -0.0, 1e-7, 10**30, 1.0, 123456789.123]),
)
CONSTANT = st.sampled_from([True, False, None, {}, [], "", " ", "\n"])
INNER = st.recursive(
    NUMBER | CONSTANT | ANY_TEXT | st.sampled_from([float("nan"), float("inf")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)
VALUE = st.one_of(ANY_TEXT, NUMBER, CONSTANT, INNER)
KEY = st.one_of(st.sampled_from(["city", "days", "unit", "q"]), st.sampled_from(["city", "days"]), ANY_TEXT)
ARGUMENTS = st.dictionaries(KEY, VALUE, max_size=4)


def with_calls(*calls, answer="So."):
    """A record in which the assistant makes calls with these arguments, one turn with all of them."""
    made = [
        {"type": "function", "id": f"c{number}", "function": {"name": f"get_{number}", "arguments": arguments}}
        for number, arguments in enumerate(calls)
    ]
    results = [
        {"role": "tool", "content": f"result {number}", "tool_call_id": f"c{number}"} for number in range(len(made))
    ]
    first = [{"role": "user", "content": "Look"}, {"role": "assistant", "content": None, "tool_calls": made}]
    return {"messages": [*first, *results, {"role": "assistant", "content": answer}]}
