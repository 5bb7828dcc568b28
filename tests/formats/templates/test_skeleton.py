"""Filled skeletons against Jinja: never another character, never another span, or no skeleton at all."""

from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from template_texts import ALWAYS_HEADER, CHATML, GENERATION, LLAMA2, LLAMA2_TRIMS, THINKS, TOKENS, TRIMS

from sft_shards.formats.columnar import INPUT, ConversationColumns, text_only_digest, text_only_messages
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import ChatTemplate, Tracer, TrainOn, sources, template_source
from sft_shards.formats.templates.sandbox import compile_template
from sft_shards.formats.templates.traced_text import Trace
from sft_shards.preprocess.pipeline.batch import ConversationBatch, RenderedBatch
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.render import BatchRendering

pytestmark = pytest.mark.unit

TEMPLATES = {
    "chatml": CHATML,
    "trims": TRIMS,
    "thinks": THINKS,
    "always header": ALWAYS_HEADER,
    "llama2": LLAMA2,
    "llama2 trims": LLAMA2_TRIMS,
    "generation": GENERATION,
    "joined": CHATML.replace("m.role + '\\n' + m.content", "m.role ~ '\\n' ~ m.content"),
    "macro": "{% macro say(m) %}{{ m.role + ': ' + m.content }}{% endmacro %}{% for m in messages %}{{ say(m) + '</s>' }}{% endfor %}",
    "block": "{% for m in messages %}{% set x %}{{ m.content }}{% endset %}{{ m.role + x + '</s>' }}{% endfor %}",
    "starts with": CHATML.replace("m.content", "('?' if m.content.startswith('Q:') else '') + m.content"),
    "contains": CHATML.replace("m.content", "m.content + ('!' if 'yes' in m.content else '')"),
    "replaces": CHATML.replace("m.content", "m.content.replace('<br>', '\\n')"),
    "empty": CHATML.replace("m.content", "(m.content if m.content else 'nothing')"),
    "equals": CHATML.replace("m.content", "(m.content if m.content != 'skip' else '...')"),
    "is string": CHATML.replace("m.content", "(m.content if m.content is string else 'parts')"),
    **{f"built-in {name}": template_source(name) for name in sources()},
}


@cache
def compiled(name):
    return ChatTemplate("t", TEMPLATES[name], TOKENS)


WORDS = st.sampled_from(
    ["Q:", "yes", "skip", "<br>", "<think>", "</think>", "<tool_response>", "</s>", "<|im_end|>", "[/INST]", "x0"]
)
TEXT = st.lists(
    WORDS | st.text(st.sampled_from([*"ab \n\t\rQ:?<", "é", "\u2028", "👩", "\ufdd6", "ﷺ"]), max_size=6), max_size=4
).map("".join)


def roles_of(rounds, system, extra):
    roles = ["system"] if system else []
    for number in range(rounds):
        roles += ["user", *([INPUT] if extra and number == 0 else []), "assistant"]
    return tuple(roles)


def fill(template, roles, texts) -> RenderedBatch | None:
    """One conversation as its skeleton renders it; None where Jinja has to."""
    reference = ReferenceRendering(template, TrainOn(), with_digests=False)
    rendering = BatchRendering(template, TrainOn(), reference, with_digests=False)
    rendered = rendering.render(
        ConversationBatch(first_record=0, columns=ConversationColumns.from_rows({0: (roles, texts)}), others={})
    )
    return None if rendering.fallbacks else rendered


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=12)
@given(st.data(), st.integers(1, 3), st.booleans(), st.booleans())
def test_what_is_filled_is_what_jinja_gives(name, data, rounds, system, extra):
    template = compiled(name)
    roles = roles_of(rounds, system, extra)
    texts = data.draw(st.tuples(*(TEXT.filter(str.strip) for _ in roles)))
    filled = fill(template, roles, texts)
    if filled is None:
        return
    conversation = Conversation.from_text_only(roles, texts)
    assert conversation.text_only() == (roles, list(texts))
    rendering = template.render(conversation)
    assert filled.texts == [filled.joined] == [rendering.text]
    assert filled.text.tobytes() == rendering.text.encode()
    spans = TrainOn().spans(rendering, conversation)
    assert filled.spans.tolist() == [[len(rendering.text[:at].encode()) for at in span] for span in spans]
    assert rendering.typed == ()
    assert rendering.notes == ()


PIECES = st.sampled_from(
    [
        "{c}",
        "'{{}}:'.format({c})",
        "'%s:' % {c}",
        "{c}.strip()",
        "{c} | trim",
        "{c}.split('</think>')[-1]",
        "{c}.split('b')[0].lstrip('\\n')",
        "{c}.replace('a', 'b')",
        "{c}.upper()",
        "{c}[1:]",
        "{c}[:2] ~ {c}",
        "({c} ~ 'b')",
        "('U: ' + {c})",
        "('U: ' + {c}).strip()",
        "('y' if 'a' in {c} else 'n')",
        "('y' if {c} in 'some words' else 'n')",
        "('y' if {c} in ['a', 'x0'] else 'n')",
        "('y' if {c} == 'a' else 'n')",
        "('y' if '{{}}'.format({c}) == 'a' else {c})",
        "('y' if ('%s' % {c}) in ['a'] else {c})",
        "('y' if {c}.startswith(('a', ' ')) else {c})",
        "('y' if ({c} ~ 'b').endswith('ab') else {c})",
        "({c} | length | string)",
        "('y' if {c} > 'b' else {c})",
        "('y' if {c}.trace is defined else {c})",
        "('y' if {c}.strip() else {c})",
        "({{'k': {c}}}.k)",
        "dict(role={c}).role",
        "('y' if dict(role={c}).role in 'ab' else {c})",
        "namespace(x={c}).x",
        "[{c}, 'z'] | first",
        "([{c}] * 2)[1]",
        "{c}.join(['a', 'b'])",
        "'-'.join([{c}])",
        "['z', {c}, 1] | join('-')",
        "['z', 'y'] | join({c})",
        "{c}.split('b') | join('c')",
        "{c}.split('b')[1:] | join('b')",
        "{c} | replace('a', 'b')",
        "({c} ~ 'ab') | replace('ab', {c})",
        "{c} | default('d', true)",
        "{c} | tojson",
    ]
)
NEST = st.recursive(
    st.just("m.content"), lambda inner: st.builds(lambda form, c: form.format(c=f"({c})"), PIECES, inner), max_leaves=3
)


@settings(max_examples=60)
@given(st.data(), st.lists(NEST, min_size=1, max_size=2))
def test_random_templates_are_filled_as_jinja_renders_them(data, expressions):
    body = "".join("{{ " + expression + " }}" for expression in expressions)
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + body + "<|im_end|>\n{% endfor %}"
    try:
        template = ChatTemplate("t", source, TOKENS)
    except UsageError:
        return
    small = st.lists(st.sampled_from([*"ab \nU:", "</think>", "é"]), min_size=1, max_size=5).map("".join)
    small = small.filter(str.strip)
    texts = data.draw(st.tuples(small, small))
    filled = fill(template, ("user", "assistant"), texts)
    if filled is None:
        return
    rendering = template.render(Conversation.from_text_only(("user", "assistant"), texts))
    assert filled.texts == [rendering.text]


@pytest.mark.parametrize("said", [" :", "\t", "a"])
def test_white_space_after_an_empty_think_block_is_the_turn_s_own(said):
    template = ChatTemplate("t", THINKS, TOKENS)
    conversation = Conversation(turns=(Turn(role="user", content="a"), Turn(role="assistant", content=said + "x")))
    rendering = template.render(conversation)
    ((start, end),) = TrainOn().spans(rendering, conversation)
    assert rendering.text[start:end] == said + "x<|im_end|>"


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("trims", ["\n a b\u3000", "\u2028 ü \t x"]),
        ("llama2 trims", ["  q ", " a\n"]),
        ("thinks", ["q", "\n\n a \n"]),
        ("built-in gemma", ["\tq\n", "é  "]),
    ],
)
def test_texts_that_a_template_trims_are_filled_all_the_same(name, texts):
    template = compiled(name)
    filled = fill(template, ("user", "assistant"), texts)
    rendering = template.render(Conversation.from_text_only(("user", "assistant"), texts))
    assert filled.texts == [rendering.text]
    ((start, end),) = filled.spans.tolist()
    assert texts[1].strip() in filled.text[start:end].tobytes().decode()


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"macro"}))
def test_ordinary_conversations_are_filled(name):
    template = compiled(name)
    for roles in (("user", "assistant"), ("user", "assistant", "user", "assistant"), ("user", INPUT, "assistant")):
        texts = [f"text {number}, naïve" for number in range(len(roles))]
        assert fill(template, roles, texts) is not None, roles


@pytest.mark.parametrize(
    "expression",
    [
        "m.content | upper",
        "m.content | length",
        "m.content[1:]",
        "m.content[0]",
        "m.content.title()",
        "m.content.split()",
        "m.content * 2",
        "''.join([m.content])",
        "m.content | replace('a', 'b', 1)",
        "m.content | replace(m.content, 'b')",
        "'abc' | replace('b', m.content)",
        "m.content | join('-')",
        "[m] | join('-', attribute='content')",
        "[[m.content]] | join",
        "'%s!' | format(m.content)",
        "'%s' | format(m.content, 1)",
        "'{}'.format(m.content)",
        "'%s' % m.content",
        "('y' if 'a' in ([m.content] | string) else 'n')",
        "('y' if 'a' in ('' ~ m) else 'n')",
        "m.content | e",
        "('y' if m.content in 'some words' else 'n')",
        "('y' if m.content > 'k' else 'n')",
        "('y' if m.content == messages[0].content else 'n')",
        "{'k': 1}[m.content]",
        "m.content.encode()",
        "(m.content ~ 'b').find('b')",
        "{% for c in m.content %}{{ c }}{% endfor %}",
        "(messages | map(attribute='content') | join('a')).count('a')",
        "'a'.join(messages | map(attribute='content')).count('a')",
        "','.join(m.values())",
    ],
)
def test_what_depends_on_the_text_itself_is_not_followed(expression):
    body = expression if expression.startswith("{%") else "{{ " + expression + " }}"
    source = "{% for m in messages %}" + body + "{{ m.content }}</s>{% endfor %}"
    template = ChatTemplate("t", CHATML, TOKENS)
    template.source = source
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it raises, Jinja renders such conversations
        Tracer(template)._run(("user", "assistant"), Trace())


@pytest.mark.parametrize(
    "expression",
    [
        "m.content | tojson",
        "(m.role + m.content) | trim",
        "['U', m.content.strip(), 1] | join('-')",
        "['<', '>'] | join(m.content)",
        "m.values() | join(',')",
        "[m.content] | map('trim') | join('-')",
        "(m.content ~ ' <b>').split('<b>') | join('::')",
        "('x<b>' ~ m.content).split('<b>')[1:] | join('<b>')",
        "m.content | replace('<b>', '::') | trim",
        "(m.content ~ '::<b>') | replace('<b>', m.role)",
    ],
)
@pytest.mark.parametrize("texts", [["a", "b"], [" a\n", 'say "b"'], ["<b>", "\\ "], ["::a<", "b"], ["b><b>", "::"]])
def test_what_is_made_of_a_text_is_filled_or_left_to_jinja(expression, texts):
    source = CHATML.replace("m.content", f"({expression} if m.role == 'user' else m.content)")
    template = ChatTemplate("t", source, TOKENS)
    filled = fill(template, ("user", "assistant"), texts)
    turns = [Turn(role=role, content=text) for role, text in zip(("user", "assistant"), texts, strict=True)]
    assert filled is None or filled.texts == [template.render(Conversation(turns=tuple(turns))).text]
    assert filled is not None or texts != ["a", "b"]


TAGGED = (
    "{%- set tag = '<tool_response>' %}{%- set begin = text[:tag|length] %}{%- set end_tag = '</tool_response>' %}"
    "{%- set place = (text|length) - end_tag|length %}{%- if place < 0 %}{%- set place = 0 %}{%- endif %}"
    "{%- set end = text[place:] %}{{- 'tagged' if begin == tag and end == end_tag else 'plain' }}"
    "{{- 'opened' if begin == tag }}{{- 'closed' if end == end_tag }}{{- 'short' if end == 'zz' or begin == 'zz' }}"
)


@pytest.mark.parametrize("text", ["m.content", "m.content.strip()", "m.role + m.content", "m.content + '!'"])
def test_texts_whose_ends_are_sliced_off_are_filled_or_left_to_jinja(text):
    tagged = "{% set text = " + text + " %}" + TAGGED
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + tagged + "{{- m.content }}<|im_end|>\n{% endfor %}"
    template = ChatTemplate("t", source, TOKENS)
    tags = (
        "<tool_response>",
        "</tool_response>",
        "<tool_response",
        "/tool_response>",
        "zz",
        "a",
        "<",
        ">",
        "\n",
        " " * 20,
    )
    left = set()
    for said in [one + other for one, other in product(("", *tags[:4]), tags) if (one + other).strip()]:
        texts = (said, "It is so.")
        filled = fill(template, ("user", "assistant"), texts)
        if filled is None:
            left.add(said)
        else:
            assert filled.texts == [template.render(Conversation.from_text_only(("user", "assistant"), texts)).text]
    looked_for = ("<tool_response>", "</tool_response>", "zz")
    assert all(any(one in said for one in looked_for) for said in left)
    assert "zz" in left or text != "m.content"


SEEN = "{% set ns.seen = 'x' %}"


@pytest.mark.parametrize(
    ("body", "is_traced"),
    [
        ("{% if p.type == 'image' %}" + SEEN + "{% endif %}", True),
        ("{% if p['type'] == 'image' %}" + SEEN + "{% elif 'ab' in p or p.kind == none %}!{% endif %}", True),
        ("{% if p.type == 'image' and x %}!{% endif %}{% if 'text' in p %}{{ p.text }}{% endif %}", True),
        ("{% if p.type == 'image' %}!{% else %}" + SEEN + "{% endif %}", False),
        ("{% if p.type == 'image' %}!{% elif p %}" + SEEN + "{% endif %}", False),
        ("{% if p.type == 'image' or loop.last %}" + SEEN + "{% endif %}", False),
        ("{% if p.type != 'image' %}" + SEEN + "{% endif %}", False),
        ("{% if p.type == p.kind %}" + SEEN + "{% endif %}", False),
        ("{% if 'a' in p %}" + SEEN + "{% endif %}", False),
        ("{% if 'text' not in p %}" + SEEN + "{% endif %}", False),
        ("{% if p.title == none %}!{% endif %}", False),
        ("{% if p.type == 'image' %}!{% endif %}{{ '' }}", False),
        (SEEN, False),
        ("{% if p.type == 'image' %}!{% endif %}{% else %}" + SEEN, False),
    ],
)
def test_loops_through_the_parts_of_contents_that_meet_a_text(body, is_traced):
    template = ChatTemplate(
        "t",
        "{% set ns = namespace(seen='') %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% for p in m.content %}" + body + "{% endfor %}{{ ns.seen + m.content + '<|im_end|>' + '\n' }}{% endfor %}",
        TOKENS,
    )
    for texts in (["cab", "b"], ["ab", "type"], ["a", "\u2028é"]):
        filled = fill(template, ("user", "assistant"), texts)
        assert (filled is not None) is is_traced
        if is_traced:
            assert filled.texts == [template.render(Conversation.from_text_only(("user", "assistant"), texts)).text]


@pytest.mark.parametrize(
    "loop",
    [
        "{% for p in parts if p.type %}{% if p.type == 'a' %}[{{ p.text }}]{% endif %}{% endfor %}",
        "{% for p in parts %}{% if p.type == 'a' %}[{{ p.text }}]{% endif %}{% else %}none{% endfor %}",
        "{% for p in parts %}{% if p.type == 'a' or 'text' in p %}[{{ p.text }}{{ loop.index }}]{% endif %}{% endfor %}",
    ],
)
def test_loops_through_the_parts_of_contents_meet_parts_as_ever(loop):
    environment = Tracer(compiled("chatml"))._template.environment
    for parts in ([{"type": "a", "text": "b"}, {"type": "c"}, {"text": "d"}], [], "", "ab", None):
        outcomes = []
        for template in (environment.from_string(loop), compile_template(loop)):
            try:
                outcomes.append(template.render(parts=parts))
            except TypeError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("given", "answer"), [("-2", "0"), ("2", "2"), ("0", "0"), ("-0.5", "0"), ("x", "error"), ("'a'", "error")]
)
def test_a_number_is_held_at_0_as_the_statement_does(given, answer):
    tracer = Tracer(compiled("chatml"))
    body = "{% set n = " + given + " %}{% if n < 0 %}{% set n = 0 %}{% endif %}[{{ n }}]"
    tracer._template = tracer._template.environment.from_string(body)
    if answer == "error":
        with pytest.raises((UndefinedError, TypeError)):
            tracer._template.render()
    else:
        assert tracer._template.render() == f"[{answer}]"
    in_loop = "{% set n = -1 %}{% for i in [-1, 1] %}{% if n < 0 %}{% set n = 0 %}{% endif %}{{ n }}{% set n = i %}{% endfor %}{{ n }}"
    environment = tracer._template.environment
    assert environment.from_string(in_loop).render() == compile_template(in_loop).render() == "00-1"
    for other in (
        "{% if n < 0 %}{% set n = 0 %}{% else %}!{% endif %}",
        "{% if n < 1 %}{% set n = 0 %}{% endif %}",
        "{% if n < 0 %}{% set n = false %}{% endif %}",
        "{% if n < 0 %} {% set n = 0 %}{% endif %}",
        "{% if n < 0 %}{% set k = 0 %}{% endif %}",
    ):
        for value in (-1, 0, 1):
            whole = other + "[{{ n }}{{ k }}]"
            assert environment.from_string(whole).render(n=value) == compile_template(whole).render(n=value)


@given(st.lists(TEXT, min_size=2, max_size=4))
def test_plain_conversations_have_the_digest_and_messages_of_their_parts(texts):
    turns = [Turn(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)]
    try:
        conversation = Conversation(turns=tuple(turns))
    except RecordError:
        return
    shape, parts = conversation.text_only()
    assert conversation.digest() == text_only_digest(shape, parts)
    assert conversation.messages() == text_only_messages(shape, parts)
