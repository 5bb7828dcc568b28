"""A tokenizer's template is somebody else's program: what it must not be able to do."""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import sandbox
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
        "{% set ns = namespace(x=1) %}{% set ns.x = 5 %}{{ ns.x }}\n  {%- generation %} a {% endgeneration -%}\n b",
    ],
)
def test_the_rest_is_as_transformers_renders_it(source):
    reference, _ = render_jinja_template([[]], chat_template=source)
    marks = str.maketrans("", "", sandbox.GENERATION_START + sandbox.GENERATION_END)
    assert run(source).translate(marks) == reference[0]


def test_the_day_is_always_the_same():
    assert run("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"
