"""Templates that look into tools on offer, in the manner of published ones, and tools for them."""

from typing import Any

from hypothesis import strategies as st

TURNS = """
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}
    {%- for call in m.tool_calls or [] %}
        {{- '<call>' + call.function.name + ' ' + (call.function.arguments | tojson) + '</call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
# Parameters as types of TypeScript, by a macro that calls itself: like gpt-oss'.
TYPESCRIPT = (
    """
{%- macro type_of(spec) %}
    {%- if spec.type == 'array' %}{{- type_of(spec['items']) + '[]' if spec['items'] else 'any[]' }}
    {%- elif spec.type is iterable and spec.type is not string %}{{- spec.type | join(' | ') }}
    {%- elif spec.type == 'string' and spec.enum %}{{- '"' + spec.enum | join('" | "') + '"' }}
    {%- elif spec.type in ('number', 'integer') %}{{- 'number' }}
    {%- elif spec.type == 'object' %}
        {{- '{\\n' }}
        {%- for name, one in (spec.properties or {}).items() %}
            {{- name }}{{- '?' if name not in (spec.required or []) }}{{- ': ' + type_of(one) }}
            {%- if one.description %}{{- ', // ' + one.description }}{%- endif %}
            {%- if one.default is defined %}{{- ', // default: ' ~ one.default }}{%- endif %}
            {{- '\\n' }}
        {%- endfor %}
        {{- '}' }}
    {%- else %}{{- spec.type | default('any', true) }}{%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>developer\\nnamespace functions {\\n\\n' }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- '// ' + (tool.description or '') + '\\ntype ' + tool.name + ' = ' }}
        {%- if tool.parameters and tool.parameters.properties %}{{- '(_: ' + type_of(tool.parameters) + ') => any;\\n\\n' }}
        {%- else %}{{- '() => any;\\n\\n' }}{%- endif %}
    {%- endfor %}
    {{- '}<|im_end|>\\n' }}
{%- endif %}
"""
    + TURNS
)
# Parameters as XML, the other keys of their schemas one by one: like Qwen3-Coder's.
XML = (
    """
{%- macro others(values, known) %}
    {%- for key in values %}
        {%- if key not in known %}
            {{- '<' ~ key ~ '>' ~ (values[key] | tojson if values[key] is mapping else values[key] | string) ~ '</' ~ key ~ '>' }}
        {%- endif %}
    {%- endfor %}
{%- endmacro %}
{%- if tools is iterable and tools | length > 0 %}
    {{- '<|im_start|>tools\\n<tools>' }}
    {%- for tool in tools %}
        {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
        {{- '<function><name>' ~ tool.name ~ '</name>' }}
        {%- if tool.description is defined %}{{- '<description>' ~ (tool.description | trim) ~ '</description>' }}{%- endif %}
        {%- if tool.parameters is mapping and tool.parameters.properties is mapping %}
            {%- for name, fields in tool.parameters.properties | items %}
                {{- '\\n<parameter><name>' ~ name ~ '</name>' }}
                {%- if fields.type is defined %}{{- '<type>' ~ (fields.type | string) ~ '</type>' }}{%- endif %}
                {{- others(fields, ['name', 'type']) ~ '</parameter>' }}
            {%- endfor %}
            {{- others(tool.parameters, ['type', 'properties']) }}
        {%- endif %}
        {{- '</function>' }}
    {%- endfor %}
    {{- '</tools><|im_end|>\\n' }}
{%- endif %}
"""
    + TURNS
)
# Tools as functions of Python with their arguments: like Command R's.
PYTHON = (
    """
{%- macro type_of(spec) %}
    {%- if spec.type == 'string' %}{{- 'str' }}{%- elif spec.type == 'integer' %}{{- 'int' }}
    {%- elif spec.type == 'array' %}{{- 'List[' + type_of(spec['items'] or {}) + ']' }}{%- else %}{{- 'Dict' }}{%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\nHere are the tools:\\n' }}
    {%- for tool in tools %}
        {%- set known = (tool.function.parameters or {}).properties or {} %}
        {%- set needed = (tool.function.parameters or {}).required or [] %}
        {{- '\\n```python\\ndef ' + tool.function.name + '(' }}
        {%- for name, spec in known.items() %}
            {{- name + ': ' + (type_of(spec) if name in needed else 'Optional[' + type_of(spec) + '] = None') }}
            {{- '' if loop.last else ', ' }}
        {%- endfor %}
        {{- ') -> List[Dict]:\\n    \\'\\'\\'' + (tool.function.description or '') }}
        {%- for name, spec in known | dictsort %}{{- '\\n    ' + name ~ ' (' + type_of(spec) + '): ' ~ spec.description }}{%- endfor %}
        {{- '\\'\\'\\'\\n    pass\\n```' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
"""
    + TURNS
)
# Writes a call in the way that the tool of its name says.
LOOKED_UP = TYPESCRIPT.replace(
    "call.function.name + ' '",
    "call.function.name + ('!' if tools | selectattr('function.name', 'equalto', call.function.name) | list else '?')",
)
LOOKS_INTO_TOOLS = {"typescript": TYPESCRIPT, "xml": XML, "python": PYTHON, "looked up": LOOKED_UP}


def tool(name: str, description: str | None = "Looks.", **properties: Any) -> dict[str, Any]:
    """A tool in OpenAI's form; all of its parameters but the last are required."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:-1]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = tool(
    "get_weather",
    "The weather of a place.\n",
    city={"type": "string", "description": "Where, as “Basel”."},
    days={"type": "array", "items": {"type": "integer"}, "default": 1.50},
    unit={"type": "string", "enum": ["°C", "°F"], "description": "In which unit"},
)
SEARCH = tool(
    "search", query={"type": ["string", "null"]}, filters={"type": "object", "properties": {}, "x": {"y": [1]}}
)

PLAIN = st.sampled_from(["a", "é日", "", " b\n", "x0", '"', "\\ {", "get_weather"])
ODD = PLAIN | st.sampled_from(["<think>", "<|im_end|>", "\ufdd6", "\0text"])


def tools_of(word: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Tools whose texts are some words."""
    leaf = st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "object", "array"])},
        optional={
            "description": word,
            "enum": st.lists(word, max_size=2),
            "default": st.floats(allow_nan=False) | word,
        },
    )
    schema = st.recursive(
        leaf,
        lambda inner: st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={"properties": st.dictionaries(word, inner, max_size=2), "items": inner},
        ),
        max_leaves=3,
    )
    properties = st.dictionaries(st.sampled_from(["a", "é", "city"]), schema, max_size=2)
    names = st.sampled_from(["get_weather", "search", "x0", "a.b"])
    one = st.builds(lambda name, words, own: tool(name, words, **own), names, st.none() | word, properties)
    return st.lists(one, min_size=1, max_size=2)


TOOLS = tools_of(PLAIN) | tools_of(PLAIN) | tools_of(ODD) | st.just([WEATHER, SEARCH])
