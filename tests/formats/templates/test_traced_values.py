"""Traced members of arguments: what follows from their types is answered as Jinja would, and the rest is refused."""

import json

import pytest
from jinja2.filters import do_dictsort
from traced_gaps import fill_gaps
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.columnar import text_labels
from sft_shards.formats.layouts import put_together
from sft_shards.formats.templates.sandbox import compile_template, run
from sft_shards.formats.templates.skeleton import READERS, _guarded_sandbox
from sft_shards.formats.templates.traced_json import TracedMapping, holds_traced
from sft_shards.formats.templates.traced_text import Trace, TracedText, Untraceable, untraced

pytestmark = pytest.mark.unit
ARGUMENTS = {
    "city": ' say "Basel" <b>\n',
    " x ": "",
    "n": -1e22,
    "big": 10**30,
    "zero": 0,
    "o": {"b": [1, "é", 1.5], "a": None},
    "l": ["x", {"y": 1.0}, True],
    "t": True,
    "none": None,
    "no": {},
}
NUMBERS = ["value_number"] * 3
LABELS = ["value", 'value=""', *NUMBERS, "value_object", "value_list", "value=true", "value=null", "value={}"]
LAYOUT = ("assistant", "call", *(one for label in LABELS for one in ("key", label)))
"""The layout of a turn whose call has these arguments."""
TEXTS = [
    "",
    "get",
    *(
        text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        for (key, value), label in zip(ARGUMENTS.items(), LABELS, strict=True)
        for text in ((key, value) if "=" not in label else (key,))
    ),
]


def traced_arguments(order=()):
    """The object of these arguments, traced."""
    trace = Trace()
    texts = [TracedText.message(number, trace) for number in range(len(text_labels(LAYOUT)))]
    numbers = {untraced(text): number for number, text in enumerate(texts)}
    turns, _ = put_together(
        LAYOUT,
        texts,
        read=lambda label, text: READERS[label](numbers[untraced(text)], trace),
        mapping=lambda _order: TracedMapping.empty(trace, [*order]),
    )
    return turns[0].tool_calls[0]["function"]["arguments"], trace


def filled(source, order=()):
    """What a template writes of the traced object, with the texts in the gaps."""
    traced, trace = traced_arguments(order)
    written = "".join(untraced(one) for one in run(compile_template(source, _guarded_sandbox), {"a": traced}))
    return fill_gaps(written, trace, TEXTS)


def rendered(source):
    return render_jinja_template([[]], chat_template=source, a=ARGUMENTS)[0][0]


EACH = "{% for k, v in a.items() %}[EXPRESSION]{% endfor %}"


@pytest.mark.parametrize(
    "expression",
    [
        "k",
        "k ~ '=' ~ v",
        "k | trim",
        "v",
        "v | string",
        "v | string | trim",
        "v | tojson",
        "v | tojson | safe",
        "v | tojson | safe ~ '!'",
        "v | tojson | safe | string ~ '<'",
        "v | tojson(ensure_ascii=True, indent=2)",
        "v | tojson(separators=(',', ':'))",
        "k | tojson + ': ' + v | tojson",
        "{k: 1}.values() | list | string if false else v is string",
        "v is mapping",
        "v is number",
        "v is boolean",
        "v is none",
        "v is defined",
        "v is undefined",
        "v is true",
        "v is iterable",
        "v is sequence",
        "v is sequence and v is not string",
        "v | default('d') | string",
        "a[k]",
        "a.get(k, 'd')",
        "[k, v] | first",
        "[v] | tojson",
        "{'v': v} | tojson(indent=4)",
        "'y' if '<b' in k else 'n'",
        "loop.index ~ loop.last ~ loop.length",
        "'%s' | format(v)",
        "'%s' | format(k) + '<'",
        "v == '' or v == none or v != ''",
        "v == []",
        "v == {}",
        "v != none ~ (v in ['', none])",
    ],
)
def test_members_are_written_as_jinja_writes_them(expression):
    source = EACH.replace("EXPRESSION", "{{ " + expression + " }}")
    assert filled(source) == rendered(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for k, v in a | items %}{{ k ~ v }}{% endfor %}",
        "{% for k in a %}{{ k ~ a[k] }}{% endfor %}",
        "{% for k in a.keys() %}{{ k ~ a[k] }}{% endfor %}",
        "{% for k in a | list %}{{ loop.index ~ k }}{% endfor %}",
        "{% for v in a.values() | list %}{{ v }}{% endfor %}",
        "{% for k, v in a.items() if v is not none and v is not mapping %}{{ k ~ v }}{% endfor %}",
        "{{ a.items() | length ~ a | length ~ a.keys() | length ~ (a | list | length) }}",
        "{{ a.items() | first | first ~ (a.keys() | first) ~ (a.values() | last) ~ (a | first) }}",
        "{{ (a.items() | reverse | first)[0] }}",
        "{{ (a.items() | list)[2][1] }}",
        "{{ 'y' if a and a.items() and a.keys() else 'n' }}",
        "{{ a is mapping ~ a is string ~ a is none ~ a is defined ~ a is sequence ~ a is iterable ~ a is number }}",
        "{{ a == {} ~ (a != '') ~ (a == none) ~ (a == []) ~ (a in ['', none]) }}",
        "{{ a | tojson }}",
        "{{ a | tojson(ensure_ascii=True) }}",
        "{{ a | tojson(indent=4) }}",
        "{{ {'x': [a]} | tojson(indent=2, separators=(',', ': ')) }}",
        "{{ a | tojson(separators=(',', ':')) | safe }}",
        "{% macro m(key, value) %}<{{ key }}>{{ value }}{% endmacro %}{% for k, v in a.items() %}{{ m(k, v) }}{% endfor %}",
        "{{ a.keys() | join }}",
        "{{ a | join(', ') }}",
    ],
)
def test_the_object_is_gone_through_as_jinja_does(source):
    assert filled(source) == rendered(source)


def test_an_object_is_sorted_where_the_order_of_its_keys_is_known():
    order = [list(ARGUMENTS).index(key) for key, _ in do_dictsort(ARGUMENTS)]
    assert order != sorted(order)
    source = "{% for k, v in a | dictsort %}{{ loop.index ~ k ~ v }}{% endfor %}{{ a | tojson }}"
    assert filled(source, order) == rendered(source)
    for options in ("true", "by='value'", "reverse=true"):
        with pytest.raises(Untraceable):
            filled("{{ a | dictsort(" + options + ") | length }}", order)


@pytest.mark.parametrize(
    "source",
    [
        "{% for k, v in a | dictsort %}{{ k }}{% endfor %}",
        "{{ a | tojson(sort_keys=True) }}",
        "{{ a }}",
        "{{ a | string }}",
        "{{ a.city }}",
        "{{ a.members }}",
        "{{ a.trace }}",
        "{{ a['city'] }}",
        "{{ a.get('city') }}",
        "{{ 'city' in a }}",
        "{{ 'city' in a.keys() }}",
        "{{ a == {'city': 1} }}",
        "{{ a == a }}",
        "{{ a.items() }}",
        "{{ a.keys() == [] }}",
        "{{ a.items() | sort | length }}",
        "{{ a.copy() | length }}",
        "{{ a.items()[0] }}",
        "{{ dict(a) | length }}",
        "{{ a.keys().mapping | length }}",
        "{% for k, v in a.items() %}{{ {k: v} | length }}{% endfor %}",
    ],
)
def test_what_depends_on_the_keys_is_refused(source):
    with pytest.raises(Untraceable):
        filled(source)


@pytest.mark.parametrize("label", ["value_number", "value_object", "value_list"])
@pytest.mark.parametrize(
    "expression",
    [
        "v == v",
        "v != v",
        "v.real",
        "v.number",
        "v.trace",
        "v['x']",
        "'%d' | format(v)",
        "'%5s' | format(v)",
        "'{}'.format(v)",
        "[v] | string",
        "v | safe",
        "v is integer",
        "v is sameas(1)",
        "[v, v] | unique | length",
        "[v] | sum",
        "v | float",
        "{v: 1} | length",
    ],
)
def test_what_depends_on_a_value_is_refused(label, expression):
    number = LABELS.index(label)
    source = (
        "{% for v in a.values() %}{% if loop.index0 == "
        + str(number)
        + " %}{{ "
        + expression
        + " }}{% endif %}{% endfor %}"
    )
    with pytest.raises(Untraceable):
        filled(source)


@pytest.mark.parametrize(
    "expression",
    [
        "v == 1",
        "v == true",
        "v in [1, 2]",
        "v + 1",
        "-v",
        "v > 1",
        "1 < v",
        "v * 2",
        "v | abs",
        "v and 'y'",
        "v // 2",
        "v | int",
    ],
)
def test_numbers_are_not_computed_with(expression):
    with pytest.raises(Untraceable):
        filled(
            "{% for v in a.values() %}{% if v is number and loop.index == 3 %}{{ "
            + expression
            + " }}{% endif %}{% endfor %}"
        )


@pytest.mark.parametrize(
    "expression",
    [
        "v + '<'",
        "'<' + v",
        "v | string + '<'",
        "v.strip()",
        "v | trim",
        "v[1:]",
        "v[0]",
        "v.unescape()",
        "v | upper",
        "v.split('a')",
    ],
)
def test_what_is_added_to_a_text_that_is_not_escaped_would_be(expression):
    with pytest.raises(Untraceable):
        filled(
            "{% for v in a.values() %}{% if loop.first %}{% set v = v | safe %}{{ "
            + expression
            + " }}{% endif %}{% endfor %}"
        )


@pytest.mark.parametrize("expression", ["'<' | safe + v", "v + '<' | safe", "'x' + ('<' | safe) + v"])
def test_a_known_text_that_is_not_escaped_escapes_what_it_is_added_to(expression):
    source = "{% for v in a.values() %}{% if loop.first %}{{ " + expression + " }}{% endif %}{% endfor %}"
    assert "&lt;" in rendered(source)
    with pytest.raises(Untraceable):
        filled(source)


def test_members_are_known_to_be_traced():
    traced, _ = traced_arguments()
    values = list(traced.values())
    assert all(holds_traced([one]) for one in (traced, traced.items(), values[2], values[5], values[6]))
    assert not holds_traced(values[7:])
