"""A tokenizer's template is somebody else's program: what it must not be able to do."""

from types import BuiltinMethodType

import jinja2
import jinja2.sandbox
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import budget, sandbox
from sft_shards.formats.templates.sandbox import compile_template, render

pytestmark = pytest.mark.unit


def run(source, **variables):
    return render(compile_template(source), messages=[], **variables)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ 'x' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ 'x'.ljust(9999999999) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 9999999999) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ 'x' | center(9999999999) }}",
        "{{ 'x\ny' | indent(9999999999) }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ undefined.attribute }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_refused(source):
    with pytest.raises(RecordError, match="template_error"):
        run(source)


def grow(step, start="'a' * 1000"):
    """A template that applies a step to a value again and again."""
    return "{% set ns = namespace(x=" + start + ") %}{% for i in range(99) %}{% set ns.x = " + step + " %}{% endfor %}"


NESTED = grow("[ns.x, ns.x]", "[1]")
TUPLES = grow("(ns.x, ns.x)", "(1,)")


@pytest.mark.parametrize(
    "source",
    [
        grow("ns.x ~ ns.x"),
        grow("ns.x + ns.x"),
        grow("ns.x.replace('a', ns.x)"),
        grow("ns.x | replace('a', ns.x)"),
        grow("ns.x.join(ns.x)"),
        grow("[ns.x, ns.x] | join(ns.x)"),
        grow("ns.x.translate({97: ns.x})"),
        grow("ns.x.translate(''.maketrans({'a': ns.x}))"),
        grow("'{0}{0}'.format(ns.x)"),
        grow("'%s%s' % (ns.x, ns.x)"),
        grow("ns.x | forceescape", "'<' * 1000"),
        grow("ns.x + ns.x", "[1]"),
        grow("ns.x * ns.x", "3"),
        grow("ns.x * 9", "[1]"),
        grow("ns.x + ['a' * 9999999]", "[]"),
        grow("ns.x + [range(99999) | list]", "[]"),
        NESTED + "{{ ns.x }}",
        NESTED + "{{ ns.x ~ '' }}",
        NESTED + "{{ ns.x | tojson }}",
        NESTED + "{{ ns.x | upper }}",
        NESTED + "{{ ns.x is upper }}",
        NESTED + "{{ '%s' % (ns.x,) }}",
        NESTED + "{{ '{}'.format(ns.x) }}",
        NESTED + "{{ raise_exception(ns.x) }}",
        NESTED + "{% set y = ns.x %}" + NESTED + "{{ y == ns.x }}",
        NESTED + "{% set y = ns.x %}" + NESTED + "{{ y in [ns.x] }}",
        NESTED + "{% set y = ns.x %}" + NESTED + "{{ y is eq(ns.x) }}",
        TUPLES + "{{ {ns.x: 1} }}",
        TUPLES + "{{ {}[ns.x] }}",
        TUPLES + "{{ {}.get(ns.x) }}",
        TUPLES + "{{ [ns.x] | unique | list }}",
        "{% macro m(n) %}{% if n < 60 %}{{ m(n + 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}"
        "{% endmacro %}{{ m(1, 2, 3) }}",
        "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{{ {'a': [1]} | tojson(indent=10**9) }}",
        "{{ {'a': [1]} | tojson(indent=1000000000) }}",
        "{{ ([['a'] * 1000] * 100000) | sum(start=[]) }}",
        "{{ ('x\n' * 100000) | indent('y' * 100000) }}",
        "{{ [1] | batch(99999999999, 0) | list }}",
        "{{ [1] | slice(99999999999, 0) | list }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ ('9' * 1000000) | int }}",
        "{{ ('x' * 1000000).encode('idna') }}",
        "{{ 'x'.encode().ljust(99999999999) }}",
        "{{ (5).to_bytes(99999999999) }}",
        "{{ {}.fromkeys(range(99999), 'x' * 100000) }}",
        "{{ ('{0}' * 100000).format('x' * 100000) }}",
        "{% set x %}{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}{% endset %}",
        "{{ ('a ' * 50000000).split() | length }}",
        "{{ ('a' * 100000000) | list | length }}",
        "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    ],
)
def test_what_grows_without_bound_is_refused_before_it_is_made(source, monkeypatch):
    monkeypatch.setattr(budget, "UNITS", 8 << 20)
    with pytest.raises(RecordError, match="template_error"):
        run(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "1+" * 20000 + "1 }}",
        "{{ x" + "|upper" * 15000 + " }}",
        "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
        "{% for i in x %}" * 50 + "{% endfor %}" * 50,
        "{{ " + "9" * 100000 + " }}",
        "{% autoescape true %}{% endautoescape %}",
        "a" * 200000,
    ],
)
def test_what_cannot_be_compiled_is_a_syntax_error(source):
    with pytest.raises(jinja2.TemplateSyntaxError):
        compile_template(source)


def test_constants_are_not_computed_at_compile_time():
    compile_template("{{ 'a' | replace('a', 'b' * 99999999999) | center(99999999999) }}")


def test_a_long_conversation_may_do_more(monkeypatch):
    monkeypatch.setattr(budget, "UNITS", 1000)
    source = "{% set ns = namespace(x='') %}{% for m in messages %}{% set ns.x = ns.x ~ m %}{% endfor %}{{ ns.x }}"
    assert len(render(compile_template(source), messages=["a" * 1000] * 20)) == 20000


def test_a_template_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)
    busy = "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}"
    with pytest.raises(RecordError, match="ran for more than"):
        run(busy)


def test_a_template_that_writes_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(sandbox, "CHARACTERS", 1000)
    with pytest.raises(RecordError, match="writes more than"):
        run("{% for a in range(99999) %}{{ 'aaaa' }}{% endfor %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 7 % 2 }}{{ 'a%sb' % 'x' }}{{ '{}-{}'.format(1, 'y') }}{{ 'x\ny' | indent(2) }}{{ '=' * 20 }}{{ 2 ** 10 }}",
        "{% for i in range(3) -%}\n  {% if i == 1 %}{% continue %}{% endif %}\n {{ i }}\n{% endfor %}",
        "{{ {'b': 'é<', 'a': [1, none]} | tojson }}{{ {'a': 1} | tojson(indent=2) }}",
        "{{ ('<' | safe | string) + '<' }}{{ '<' | safe ~ '<' }}",
        "{% set ns = namespace(x=1) %}{% set ns.x = 5 %}{{ ns.x }}\n  {%- generation %} a {% endgeneration -%}\n b",
    ],
)
def test_the_rest_is_as_transformers_renders_it(source):
    reference, _ = render_jinja_template([[]], chat_template=source)
    marks = str.maketrans("", "", sandbox.GENERATION_START + sandbox.GENERATION_END)
    assert run(source).translate(marks) == reference[0]


@pytest.mark.parametrize("source", ["{{ [1] | map('string') | tojson }}", "{{ [1] | map('string') | last }}"])
def test_what_another_filter_yields_is_refused_as_by_transformers(source):
    with pytest.raises(TypeError):
        render_jinja_template([[]], chat_template=source)
    with pytest.raises(RecordError, match="TypeError"):
        run(source)


def test_the_day_is_always_the_same():
    assert run("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


def test_attributes_are_those_of_jinjas_sandbox():
    ours, jinjas = sandbox.furnish(sandbox.Sandbox), jinja2.sandbox.ImmutableSandboxedEnvironment()
    namespace = sandbox.Namespace(found=False, last=0, nothing=None, words="a b")
    values = ["a b", namespace, {"found": 1, "get": 2}, [1], 3, None]
    names = [
        *dir(str),
        *dir(dict),
        "found",
        "last",
        "nothing",
        "words",
        "missing",
        "_Namespace__attrs",
        "get",
        "items",
        "append",
    ]
    for value in values:
        for name in names:
            got, expected = ours.getattr(value, name), jinjas.getattr(value, name)
            if isinstance(expected, jinja2.Undefined):
                assert got._undefined_exception is expected._undefined_exception, (value, name)
            elif name in ("format", "format_map") and value == "a b":  # wrapped by both
                assert callable(got)
                assert not isinstance(got, BuiltinMethodType)
            else:
                assert got == expected, (value, name)


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m(a, b=2) %}{{ a }}-{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 3, 4, c=5) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
        "{% macro m(a) %}{{ a }}{{ caller(a) }}{% endmacro %}{% call(x) m('y') %}[{{ x }}]{% endcall %}",
        "{% macro m(a) %}{{ caller() }}{% endmacro %}{{ m(1) }}",
        "{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{{ 'a-b'.split('-', maxsplit=i) }}{% endfor %}",
        "{{ {'a': 1}.get('b', 'c') }}{{ {'a': 1}.items() | list }}{{ [1, 2, 1].count(1) }}{{ (3, 4).index(4) }}",
        "{{ ['a', 'b'].index('c') }}",
        "{{ '-'.join(['a', 'b']) }}{{ ' a '.strip() }}{{ 'abc'.startswith(('b', 'a')) }}",
        "{{ 'a'.upper(1) }}",
    ],
)
def test_calls_are_those_of_jinjas_sandbox(source):
    def outcome(environment):
        try:
            return environment.from_string(source).render()
        except Exception as error:
            return type(error)

    jinjas = jinja2.sandbox.ImmutableSandboxedEnvironment()
    assert outcome(sandbox.furnish(sandbox.Sandbox)) == outcome(jinjas)
