"""Templates that go through the arguments of calls: the batch path gives what Jinja gives, and leaves little to it."""

from functools import cache

import pytest
from argument_templates import ARGUMENTS, LOOKING, call_as, with_calls
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import as_json, as_lists
from template_texts import TOKENS

from sft_shards.formats.layouts import take_apart
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.templates import ChatTemplate, TrainOn
from sft_shards.preprocess.pipeline import layout_skeletons, render
from sft_shards.preprocess.pipeline.read import BatchReading, ReferenceReading
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.render import BatchRendering

pytestmark = pytest.mark.unit
USUAL = [
    {"city": "Basel", "days": 2},
    {"q": 'say "so"\n<b>\\', "limit": -1.5e-7, "o": {"a": [1, None]}, "l": ["é", True], "t": True, "n": None},
    {"city": " \n é ", "empty": "", "none": {}, "no": [], "big": 10**30, "exp": 1e22},
    {},
    {"x": "{}"},
]


@cache
def compiled(source):
    return ChatTemplate("t", source, TOKENS)


def stages(source, **policy):
    template, policy = compiled(source), TrainOn(**policy)
    reference = ReferenceRendering(template, policy, with_digests=True)
    return BatchRendering(template, policy, reference, with_digests=True), reference


def conversations(records):
    return BatchReading(FieldMap(), ReferenceReading(FieldMap())).read(as_json(records), get("openai"))


def comparable(rendered):
    return {name: value for name, value in as_lists(rendered).items() if name != "openings"}


@pytest.mark.parametrize("name", LOOKING)
def test_usual_arguments_are_filled(name, monkeypatch):
    batch, reference = stages(LOOKING[name])
    alone = []
    monkeypatch.setattr(
        render, "take_apart", lambda conversation: alone.append(conversation) or take_apart(conversation)
    )
    for _ in range(2):  # the first batch finds out that the template looks into arguments
        given_ = conversations([with_calls(one) for one in USUAL] + [with_calls(USUAL[0], USUAL[3], USUAL[4])])
        rendered = batch.render(given_)
        assert comparable(rendered) == comparable(reference.render(given_))
        assert len(rendered.texts) == len(USUAL) + 1
        assert batch.fallbacks == len(alone) == 0


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("rewritten", ["auto", "unroll"])
@settings(max_examples=30)
@given(st.lists(st.lists(ARGUMENTS, min_size=1, max_size=2), min_size=1, max_size=4))
def test_any_arguments_are_rendered_as_by_jinja(name, rewritten, calls):
    batch, reference = stages(LOOKING[name], rewritten=rewritten)
    given_ = conversations([with_calls(*one) for one in [[USUAL[0]], *calls]])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks <= len(calls)


def test_keys_are_sorted_as_jinja_sorts_them():
    keys = [("b", "a"), ("a", "b"), ("B", "a", "c"), ("a", "A"), ("A", "a"), ("É", "é", "z"), ("_", "Z", "1"), ("x",)]
    batch, reference = stages(LOOKING["sorted"])
    for _ in range(2):
        given_ = conversations([with_calls({key: n for n, key in enumerate(own)}, {"z": "y"}) for own in keys])
        assert comparable(batch.render(given_)) == comparable(reference.render(given_))
        assert batch.fallbacks == 0


def test_only_what_cannot_be_filled_goes_to_jinja():
    texts = ["a", "<|im_end|>", "b\ufdd0", "c"]
    records = [with_calls({"k": text}) for text in texts] + [with_calls({text: "v"}) for text in texts]
    batch, reference = stages(LOOKING["functions"])
    given_ = conversations(records)
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 4


def test_a_template_that_looks_for_a_string_sees_it_in_keys_and_values():
    looks = call_as("{% for k, v in call.arguments|items %}{{ k }}{{ '!' if '<b>' in v }}{{ v }}{% endfor %}")
    records = [with_calls({"k": text}) for text in ("a", "<b>")] + [with_calls({"<b>": "v"})]
    batch, reference = stages(looks)
    given_ = conversations(records)
    rendered = batch.render(given_)
    assert comparable(rendered) == comparable(reference.render(given_))
    assert "k!<b>" in rendered.texts[1]
    assert batch.fallbacks == 2


@pytest.mark.parametrize(
    "call",
    [
        "{% for k, v in call.arguments | dictsort(reverse=true) %}{{ k }}{% endfor %}",
        "{{ call.arguments.city }}",
        "{{ 'y' if 'city' in call.arguments else 'n' }}",
        "{{ call.arguments['city'] }}",
        "{% for k, v in call.arguments | items %}{{ v + 'x' if v is number else v ~ '' }}{% endfor %}",
    ],
)
def test_what_depends_on_the_members_themselves_is_rendered_by_jinja(call):
    records = [with_calls({"city": "Basel", "days": 2}), with_calls({"days": 2, "city": "Bern"})]
    batch, reference = stages(call_as("{{ call.arguments | tojson }}" + call))
    given_ = conversations(records)
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 2


def test_arguments_that_are_written_whole_keep_their_layouts():
    batch, reference = stages(call_as("{{ call.arguments | tojson }}"))
    given_ = conversations([with_calls(one) for one in USUAL])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 0
    assert not batch._skeletons.with_members


def test_tools_and_arguments_that_a_template_looks_into_are_filled_together():
    looks = "{% for tool in tools or [] %}{% for k, v in tool.function.parameters.properties|items %}"
    source = looks + "{{ tool.function.name + k + v.type }}{% endfor %}{% endfor %}" + LOOKING["functions"]
    tools = [
        {
            "type": "function",
            "function": {"name": f"get_{n}", "parameters": {"properties": {"city": {"type": "string"}}}},
        }
        for n in range(2)
    ]
    records = [{**with_calls(one, {"q": "x"}), "tools": tools} for one in USUAL * 2]
    batch, reference = stages(source)
    for _ in range(2):
        given_ = conversations(records)
        rendered = batch.render(given_)
        assert comparable(rendered) == comparable(reference.render(given_))
        assert len(rendered.texts) == len(records)
    assert batch.fallbacks == 0


def naming(source):
    """A template that looks up which call a result answers, and fails where there is none, as Gemma 4's does."""
    looks_up = """
    {%- set ns = namespace(name=none) %}
    {%- for one in messages if m.role == 'tool' %}
        {%- for call in one.tool_calls or [] %}
            {%- if call.id == m.tool_call_id %}{%- set ns.name = call.function.name %}{%- endif %}
        {%- endfor %}
    {%- endfor %}
    {%- set content = 'result of ' + ns.name + ': ' + m.content if m.role == 'tool' else m.content or '' %}"""
    named = source.replace("(m.content or '')", "content").replace("in messages %}", "in messages %}" + looks_up, 1)
    assert named.count("content") > source.count("content") + 2
    return named


def test_a_template_that_wants_the_call_of_each_result_is_given_an_example_that_has_it():
    batch, reference = stages(naming(LOOKING["sorted"]))
    for _ in range(2):
        given_ = conversations([with_calls(one) for one in USUAL] + [with_calls(USUAL[0], USUAL[4])])
        rendered = batch.render(given_)
        assert comparable(rendered) == comparable(reference.render(given_))
        assert [text.count("result of get_") for text in rendered.texts] == [1] * len(USUAL) + [2]
        assert batch.fallbacks == 0


def test_layouts_that_the_template_refuses_are_not_tried_with_members(monkeypatch):
    """In front of them stands a layout that has no skeleton with members either, with ids told apart or not."""
    monkeypatch.setattr(layout_skeletons, "MOST_TRIALS", 3)
    refuses = "{% if messages[1:3] | map(attribute='role') | list == ['user', 'user'] %}{{ raise_exception('no') }}{% endif %}"
    measures = "{{ messages[0].content | upper if messages[0].role == 'system' }}"
    batch, reference = stages(refuses + LOOKING["functions"] + measures)
    records = [with_calls(*[USUAL[0]] * calls) for calls in (1, 1, 2, 1)]
    for roles, one in zip([["system"], ["system", "user"], ["system", "user"]], records, strict=False):
        one["messages"] = [{"role": role, "content": "x"} for role in roles] + one["messages"]
    given_ = conversations(records)
    rendered = batch.render(given_)
    assert comparable(rendered) == comparable(reference.render(given_))
    assert [one.reason for one in rendered.rejects] == ["template_error"] * 2
    assert batch.fallbacks == 3


def test_layouts_whose_ids_are_to_be_told_apart_first_are_tried_then(monkeypatch):
    monkeypatch.setattr(layout_skeletons, "MOST_TRIALS", 2)
    source = naming(LOOKING["functions"]).replace("ns.name +", "(ns.name or '-') +")
    batch, reference = stages(source)
    given_ = conversations([with_calls(*[{"a": "b"}] * calls) for calls in (1, 2, 3)])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 0
