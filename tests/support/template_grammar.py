"""Random chat templates that look into the texts of messages, in every way that Jinja has."""

from hypothesis import strategies as st

LITERAL = st.sampled_from(
    ["'a'", "'x'", "' '", "'\\n'", "''", "'ab'", "'</think>'", "'<|im_end|>'", "'é'", "'{}'", "'A'", "'x0'", "'1'"]
)
NUMBER = st.sampled_from(["0", "1", "-1", "2", "3", "5", "100"])
TEXT = st.sampled_from(["m.content", "m['content']", "c", "messages[0].content", "messages[-1]['content']"])

# What is done to a text; the result is a text.
CHANGES = (
    "{t} | trim",
    "{t}.strip()",
    "{t}.lstrip({l})",
    "{t}.rstrip()",
    "{t}.strip('\\n')",
    "{t}.split({l})[{n}]",
    "{t}.split()[0]",
    "{t}.rsplit({l}, 1)[-1]",
    "{t}.split({l}) | join({l})",
    "{t}.split({l}) | last",
    "{t}[{n}:]",
    "{t}[:{n}]",
    "{t}[::-1]",
    "{t}[{n}]",
    "{t} | upper",
    "{t}.lower()",
    "{t} | title",
    "{t} | capitalize",
    "{t}.swapcase()",
    "{t} | replace({l}, {l})",
    "{t}.replace({l}, {l})",
    "{t}.replace({l}, {t})",
    "({t} | length | string)",
    "'[{{}}]'.format({t})",
    "'{{0}}{{0}}'.format({t})",
    "{t}.format({l})",
    "'%s!' % {t}",
    "'%s' | format({t})",
    "({t} ~ {l})",
    "({l} + {t})",
    "({t} + {t})",
    "{t} * 2",
    "{t} | first",
    "{t} | last",
    "{t} | list | join({l})",
    "{t} | join('-')",
    "[{t}] | join",
    "({t}.find({l}) | string)",
    "({t}.count({l}) | string)",
    "[{t}] | tojson",
    "{t} | tojson",
    "{{'k': {t}}}.k",
    "{{{t}: 'v'}}[{t}]",
    "{{'k': {t}}} | string",
    "{t} | string",
    "{t}.splitlines()[0]",
    "{t}.partition({l})[2]",
    "{t} | reverse | string",
    "({t} | wordcount | string)",
    "{t} | center(9)",
    "{t}.ljust(6, '.')",
    "{t} | indent(2)",
    "{t}.zfill(4)",
    "{t} | default({l}, true)",
    "({t} or {l})",
    "({t} and {l})",
    "{t}.removeprefix({l})",
    "{t}.removesuffix({l})",
    "{l}.join([{t}, {t}])",
    "{l}.join({t})",
    "{t}.join(['p', 'q'])",
    "{t}.title()",
    "{t} | truncate(4)",
    "{t} | e",
    "{t} | escape",
    "{t} | safe",
    "({t} | int | string)",
    "{t}.casefold()",
    "{t}.expandtabs(2)",
    "say({t})",
    "({t} | abs | string)",
    "[{t}, {l}] | sort | join",
    "[{t}, {t}] | unique | join",
    "[{t}, {l}] | min",
    "{t}.translate({{97: 'z'}})",
    "([{t}] | map('upper') | join)",
    "([{t}] | map('trim') | list)[0]",
    "(messages | map(attribute='content') | join({l}))",
    "(messages | selectattr('content', 'equalto', {t}) | list | length | string)",
    "({t} | batch(2) | list | length | string)",
    "({t}.encode() | string)",
    "({t}.isdigit() | string)",
    "(({t} is string) | string)",
    "dict(k={t}).k",
    "{t} | urlencode",
    "{t}.__len__() | string",
)
# What is asked of a text; the result is true or false.
QUESTIONS = (
    "{l} in {t}", "{l} not in {t}", "{t} in {l}", "{t} in [{l}, {l}]", "{t} == {l}", "{t} != {l}", "{t} == {t}", "{t} < {l}", "{t} >= {l}",
    "{t}.startswith({l})", "{t}.endswith({l})", "{t}.startswith(({l}, {l}))", "{t}", "not {t}", "{t} | length > {n}", "{t} | trim == {t}",
    "{t}.isupper()", "{t}.isspace()", "{t} is string", "{t} is defined", "{t} is eq({l})", "{t} is sameas(m.content)", "{t} is lower", "{t} is iterable",
    "{t} is number", "{t}.find({l}) >= 0", "{t}[{n}] == {l}", "{t}[{n}:] == {l}", "{t}.count({l}) > {n}", "{t} in messages", "{t} is in({l})",
    "{t} | first == {l}", "{t} | list | length > {n}", "{t}.split({l}) | length > 1", "messages[0].content == {t}", "{t} is none",
    "loop.changed({t})", "loop.previtem is defined and loop.previtem.content == {t}", "m.role == 'user'", "loop.last", "loop.index0 > {n}",
    "{t}[:{n}] == {l}", "{t}[-{n}:] != {l}", "{t} | length - {n} > 0", "{t}.kind == {l}", "{t}[{n}].kind",
    "{t}.strip().startswith({l})", "{t} > {t}", "{t} is divisibleby 2", "{t} is mapping", "{l} in [{t}]", "{t} is gt({l})", "{t} in {{{l}: 1}}",
)  # fmt: skip
STATEMENTS = (
    "{{{{ {t} }}}}",
    "{{% for ch in {t} %}}{{{{ ch }}}}{{% endfor %}}",
    "{{% for ch in {t} if ch != {l} %}}{{{{ ch }}}}{{% else %}}none{{% endfor %}}",
    "{{% for part in {t}.split({l}) %}}[{{{{ part }}}}]{{% endfor %}}",
    "{{% if {q} %}}{{{{ {t} }}}}{{% else %}}{{{{ {l} }}}}{{% endif %}}",
    "{{% if {q} %}}+{{% endif %}}{{{{ {t} }}}}",
    "{{% set c = {t} %}}{{{{ c }}}}",
    "{{% set c %}}({{{{ {t} }}}}){{% endset %}}{{{{ c | trim }}}}",
    "{{% set ns.seen = ns.seen ~ {t} %}}{{{{ {t} }}}}",
    "{{{{ {t} if {q} else {t} }}}}",
    "{{% with d = {t} %}}{{{{ d }}}}{{% endwith %}}",
    "{{% filter upper %}}{{{{ {t} }}}}{{% endfilter %}}",
    "{{% if {q} %}}{{{{ raise_exception('no') }}}}{{% endif %}}{{{{ {t} }}}}",
    "{{% call say('') %}}{{{{ {t} }}}}{{% endcall %}}{{{{ {t} }}}}",
    # The texts as they are, and beside them what was seen in them: these are followed most often.
    "{{{{ 'y' if {q} else 'n' }}}}{{{{ m.content }}}}",
    "{{{{ m.content }}}}{{{{ 'y' if {q} else 'n' }}}}",
    "{{{{ m.content | trim }}}}{{{{ 'y' if {q} else 'n' }}}}",
    "{{% set z = {t} %}}{{{{ 'y' if z in [{l}, {t}] else 'n' }}}}{{{{ m.content }}}}",
    "{{% set z = {t} %}}{{{{ z | length }}}}{{{{ m.content }}}}",
    "{{% set ns.seen = ns.seen ~ {t} %}}{{{{ m.content }}}}",
    "{{% set n = {t} | length - {n} %}}{{% if n < 0 %}}{{% set n = 0 %}}{{% endif %}}{{{{ 'y' if {t}[n:] == {l} }}}}{{{{ m.content }}}}",
    "{{% for ch in {t} %}}{{% if ch.kind == {l} or 'ab' in ch %}}{{% set ns.seen = {l} %}}{{% endif %}}{{% endfor %}}{{{{ m.content }}}}",
    "{{% for ch in {t} %}}{{% if ch == {l} %}}!{{% endif %}}{{% endfor %}}{{{{ m.content }}}}",
    "{{% for part in {t}.split({l}) %}}{{% if not loop.first %}}/{{% endif %}}{{% endfor %}}{{{{ m.content }}}}",
)


@st.composite
def text_expressions(draw: st.DrawFn, depth: int = 2) -> str:
    """An expression over a message that gives a text (or fails)."""
    if not depth or draw(st.integers(0, 3)) == 0:
        return draw(TEXT)
    form = draw(st.sampled_from(CHANGES))
    return "(" + fill(draw, form, depth - 1) + ")"


def fill(draw: st.DrawFn, form: str, depth: int) -> str:
    """A form with each of its holes filled by one text, literal, number and question."""
    text = draw(text_expressions(depth))
    question = draw(st.sampled_from(QUESTIONS)) if "{q}" in form else ""
    filled = form.format(t=text, l=draw(LITERAL), n=draw(NUMBER), q="\0")
    return filled.replace("\0", question.format(t=draw(TEXT), l=draw(LITERAL), n=draw(NUMBER)))


@st.composite
def chat_templates(draw: st.DrawFn) -> str:
    """A template that ends every message with `<|im_end|>`, and does something to the texts of some."""
    body = "".join(fill(draw, draw(st.sampled_from(STATEMENTS)), 2) for _ in range(draw(st.sampled_from([1, 1, 1, 2]))))
    where = draw(st.sampled_from(["true", "m.role == 'user'", "m.role == 'assistant'", "loop.last", "loop.first"]))
    written = f"{{% if {where} %}}{body}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
    return (
        "{% macro say(t) %}{{ t }}{{ caller() if caller else '' }}{% endmacro %}"
        "{% set ns = namespace(seen='') %}{% for m in messages %}{% set c = m.content %}"
        f"{{{{ '<|im_start|>' + m.role + '\\n' }}}}{written}{{{{ '<|im_end|>\\n' }}}}{{% endfor %}}"
        + draw(st.sampled_from(["", "{{ ns.seen | length }}"]))
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
