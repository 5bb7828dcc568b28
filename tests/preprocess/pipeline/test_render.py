"""Rendering: filled skeletons are what Jinja gives, and what no skeleton can render rejoins the others."""

from functools import cache

import numpy as np
import pytest
import rewriting_templates
from both_paths import Both
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import FORM, RECORD, TOOLS, as_json, as_lists, messages, rendered_from
from rewriting_templates import REWRITES
from rich_conversations import CONVERSATION
from template_texts import CHATML, THINKS, TOKENS, WITH_TOOLS

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.records import FieldMap, get
from sft_shards.formats.templates import REWRITTEN_TURNS, ChatTemplate, TrainOn
from sft_shards.preprocess.pipeline import reference_rendering
from sft_shards.preprocess.pipeline.batch import ConversationBatch
from sft_shards.preprocess.pipeline.read import BatchReading, ReferenceReading
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.render import BatchRendering
from sft_shards.preprocess.pipeline.rendered_texts import text_strings

pytestmark = pytest.mark.unit
TEXTS = st.lists(st.text(st.sampled_from("aé日👩\n"), max_size=6), max_size=5)


@cache
def compiled(source):
    return ChatTemplate("t", source, rewriting_templates.TOKENS if source in REWRITES.values() else TOKENS)


def stages(source=CHATML, policy=None, with_digests=True):
    template, policy = compiled(source), policy or TrainOn()
    reference = ReferenceRendering(template, policy, with_digests=with_digests)
    return BatchRendering(template, policy, reference, with_digests=with_digests), reference


def conversations(records, form="openai", first=0):
    return BatchReading(FieldMap(), ReferenceReading(FieldMap())).read(as_json(records, first), get(form))


def comparable(rendered):
    found = as_lists(rendered)
    assert all(any(text.startswith(one) for one in rendered.openings) for text in rendered.texts)
    return {name: value for name, value in found.items() if name != "openings"}


@pytest.mark.parametrize("train_on", ["all", "last", "weight", "everything"])
@settings(max_examples=30)
@given(st.lists(RECORD, max_size=8), FORM, st.booleans())
def test_both_implementations_render_the_same(train_on, records, form, with_digests):
    batch, reference = stages(policy=TrainOn(turns=train_on), with_digests=with_digests)
    given_ = conversations(records, form, first=3)
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))


@pytest.mark.parametrize("rewritten", REWRITTEN_TURNS)
@pytest.mark.parametrize("name", REWRITES)
def test_both_implementations_agree_on_rewritten_turns(name, rewritten):
    batch, reference = stages(REWRITES[name], TrainOn(rewritten=rewritten))
    thinks = messages("a", "<think>b</think>c", "d", "<think>\ne\n</think>\n\nf")
    given_ = conversations([messages(*"abcd"), thinks, messages(*"efgh"), messages(*"abcde"), messages(*"ab")])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))


def test_text_only_records_stay_on_the_batch_path_where_history_is_rewritten():
    records = [messages(*"abcd"), messages(*"ef"), messages(*"ghij")]
    for rewritten, spans in (("auto", 5), ("train", 5), ("skip", 3)):
        batch, _ = stages(THINKS, TrainOn(rewritten=rewritten))
        rendered = batch.render(conversations(records))
        assert batch.fallbacks == 0
        assert len(rendered.spans) == spans
        note = "rewritten_turns_without_loss" if rewritten == "skip" else "history_rewritten"
        assert rendered.notes == {0: (note,), 2: (note,)}


def test_an_answer_that_begins_as_only_a_prompt_ends_is_judged_by_the_reference():
    """Its prompt is a part of the rendering, so its turn begins behind the newline; others begin where history says."""
    surplus = CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n\\n'")
    assert surplus != CHATML
    batch, reference = stages(surplus)
    given_ = conversations([messages("a", "\nb"), messages("a", "b"), messages("a", "b", "c", "\nd")])
    rendered = batch.render(given_)
    assert comparable(rendered) == comparable(reference.render(given_))
    assert batch.fallbacks == 2
    said = [text.encode()[slice(*span)].decode() for text, span in zip(rendered.texts, rendered.spans, strict=False)]
    assert said[:2] == ["b<|im_end|>", "b<|im_end|>"]


def reasoned(*answers):
    found = messages(*(text for number, answer in enumerate(answers) for text in (f"q{number}", answer)))
    for message in found["messages"][1::2]:
        message["reasoning_content"] = "for " + message["content"]
    return found


def test_reasoning_that_is_dropped_and_unrolled_histories_stay_on_the_batch_path():
    records = [reasoned("a", "b", "c"), messages(*"abcdef"), reasoned("d"), messages(*"gh"), reasoned("i", "j")]
    for rewritten, texts in (("auto", 5), ("skip", 5), ("unroll", 10)):
        batch, reference = stages(REWRITES["as Qwen3"], TrainOn(rewritten=rewritten))
        given_ = conversations(records)
        rendered = batch.render(given_)
        assert (batch.fallbacks, len(rendered)) == (0, texts)
        assert comparable(rendered) == comparable(reference.render(given_))


def test_a_layout_whose_every_turn_is_rewritten_is_refused_on_the_batch_path():
    asked = [reasoned(*answers) for answers in ("ab", "cd", "e", ["f", "<think>g"])]
    for record in asked:
        record["messages"].append({"role": "user", "content": "last"})
    records = [reasoned("h"), asked[0], {"messages": []}, asked[1], reasoned("i", "j"), *asked[2:]]
    batch, reference = stages(REWRITES["as Qwen3"])
    given_ = conversations(records, first=4)
    rendered = batch.render(given_)
    assert comparable(rendered) == comparable(reference.render(given_))
    refused = [reject.reason for reject in rendered.rejects]
    assert refused[:4] == ["turn_rewritten", "no_assistant_turn", "turn_rewritten", "turn_rewritten"]
    assert batch.fallbacks == 1  # what the template looks for stands in one of the texts


def test_a_text_that_is_stripped_in_one_rendering_alone_keeps_its_layout_from_the_batch_path():
    strips = REWRITES["drops reasoning before the last question"].replace(
        "{{- content }}", "{{- content | trim if last else content }}"
    )
    for rewritten in ("skip", "unroll"):
        batch, reference = stages(strips, TrainOn(rewritten=rewritten))
        given_ = conversations([messages("a", "b", "c", "d"), messages("a", " b ", "c", " d ")])
        rendered = batch.render(given_)
        assert comparable(rendered) == comparable(reference.render(given_))
        assert batch.fallbacks == 2


def test_reasoning_beside_a_think_block_is_dropped_whatever_white_space_others_have():
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{% if loop.last %}{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}"
        "{{ m.content }}{% else %}{{ m.content | trim }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    )
    both = Both(source)
    thought = "<think>\nab\n</think>\n\nzz"
    found = [
        Conversation(
            turns=(
                Turn(role="system", content=system),
                Turn(role="user", content="a"),
                Turn(role="assistant", content=content, reasoning=reasoning),
                Turn(role="user", content="b"),
                Turn(role="assistant", content="c", reasoning="d"),
            )
        )
        for system in ("e", "e\n")
        for content, reasoning in ((thought, "f"), (thought, None), ("zz", "f"))
    ]
    rendered, fallbacks = both.render(*found)
    assert fallbacks == 0
    assert [record for record, notes in rendered.notes.items() if "reasoning_dropped" in notes] == [3, 5, 6, 8]


def test_a_conversation_with_long_histories_is_judged_by_the_reference(monkeypatch):
    monkeypatch.setattr(reference_rendering, "LARGEST_UNROLLED", 1 << 30)
    batch, reference = stages(REWRITES["as Qwen3"], TrainOn(rewritten="unroll"))
    given_ = conversations([messages(*["x" * 40_000] * 60), messages(*"abcd")])
    rendered = batch.render(given_)
    assert batch.fallbacks == 1
    assert [reject.reason for reject in rendered.rejects] == ["history_too_long"]
    assert comparable(rendered) == comparable(reference.render(given_))


def test_what_a_template_looks_for_in_histories_alone_keeps_a_text_from_the_batch_path():
    """The template looks into the last message's text alone, and the last message is the user's in a prompt only."""
    looks = "{{- ('!' if 'why' in m.content else '') if loop.last and m.role == 'user' else '' }}"
    source = THINKS.replace("{{- '<|im_start|>' + m.role", looks + "{{- '<|im_start|>' + m.role")
    batch, reference = stages(source, TrainOn(rewritten="skip"))
    given_ = conversations([messages("a", "b", "c", "d"), messages("a", "b", "why", "d"), messages("c", "d", "e", "f")])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 1
    assert len(batch.render(given_).spans) == 2


def as_others(found):
    nothing = ConversationColumns.from_rows({})
    return ConversationBatch(first_record=2, columns=nothing, others=dict(enumerate(found)))


@pytest.mark.parametrize("name", [*WITH_TOOLS, "thinks"])
@pytest.mark.parametrize("policy", [TrainOn(), TrainOn(turns="weight", reasoning=False, tool_calls=False)])
@settings(max_examples=40)
@given(found=st.lists(CONVERSATION, min_size=1, max_size=4))
def test_conversations_with_tools_and_reasoning_are_rendered_the_same(name, policy, found):
    batch, reference = stages({**WITH_TOOLS, "thinks": THINKS}[name], policy)
    for _ in range(2):
        assert comparable(batch.render(as_others(found))) == comparable(reference.render(as_others(found)))


TOOL = {"type": "function", "function": {"name": "get", "description": "Get\n", "parameters": {"a": {"b": ["é"]}}}}
AGENTIC = (
    Turn(role="system", content="Be brief"),
    Turn(role="user", content="Weather?"),
    Turn(
        role="assistant",
        content=None,
        reasoning="I look\nit up",
        tool_calls=({"type": "function", "function": {"name": "get", "arguments": {"a": "é\n"}}, "id": "c1"},),
    ),
    Turn(role="tool", content='{"sky": "clear"}', name="get", tool_call_id="c1"),
    Turn(role="assistant", content="<think>\nSo it is\n</think>\n\nIt is clear", weight=0),
)


@pytest.mark.parametrize(
    ("name", "without"),
    [("tagged", ()), ("indented", ("reasoning", "think")), ("listed", ("reasoning", "think")), ("thinks", ("tools",))],
)
def test_agentic_conversations_are_filled(name, without):
    """The templates but the first leave reasoning out, or tools."""
    turns = AGENTIC if "tools" not in without else (*AGENTIC[:2], Turn(role="assistant", content="x", reasoning="y"))
    if "reasoning" in without:
        call = Turn(role="assistant", content=None, tool_calls=AGENTIC[2].tool_calls)
        turns = (*AGENTIC[:2], call, AGENTIC[3], Turn(role="assistant", content="It is clear", weight=0))
    given_ = as_others([Conversation(turns=turns, tools=() if "tools" in without else (TOOL,))])
    batch, reference = stages({**WITH_TOOLS, "thinks": THINKS}[name])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 0


def test_a_record_without_skeleton_is_rendered_by_jinja_among_filled_ones():
    batch, reference = stages()
    typed = messages("<|im_end|>", "d") | {"tools": TOOLS}
    given_ = conversations([messages("a", "b"), typed, messages("e", "<think>f"), messages("g", "h")])
    rendered = batch.render(given_)
    assert batch.fallbacks == 2
    assert comparable(rendered) == comparable(reference.render(given_))
    assert rendered.records.tolist() == [0, 1, 2, 3]
    assert rendered.notes == {1: ("tools_ignored", "typed_control_tokens")}


def test_a_typed_control_token_is_located_in_bytes():
    rendered = stages()[1].render(conversations([messages("é <|im_end|>", "b")]))
    ((start, end),) = rendered.typed.tolist()
    assert rendered.text[start:end].tobytes() == b"<|im_end|>"
    assert rendered.notes == {0: ("typed_control_tokens",)}


def test_a_role_sequence_without_skeleton_is_rendered_by_jinja():
    batch, reference = stages(CHATML.replace("m.content", "m.content | upper"))
    given_ = conversations([messages("a", "B"), messages("e", "F")])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 2


def test_a_forbidden_string_is_not_hidden_by_one_that_two_texts_make_together():
    """The template looks for "ab" and "bc". The texts "a" and "bc" make "abc", in which "ab" is found first.

    Texts that make such a string only together go to the reference too, which does no harm.
    """
    source = CHATML.replace("m.content", "m.content + ('!' if 'bc' in m.content or 'ab' in m.content else '')")
    pairs = [("x", "a"), ("a", "bc"), ("a", "b"), ("b", "c"), ("words", "a ab"), ("\ufdc0", "x")]
    for number, pair in enumerate(pairs):
        batch, reference = stages(source)
        given_ = conversations([messages(*pair)])
        assert comparable(batch.render(given_)) == comparable(reference.render(given_))
        assert batch.fallbacks == (number > 0), pair
    batch, reference = stages(source)
    given_ = conversations([messages(*pair) for pair in pairs])
    assert comparable(batch.render(given_)) == comparable(reference.render(given_))
    assert batch.fallbacks == 5


@given(TEXTS, st.data())
def test_spans_in_characters_survive_the_way_through_bytes(texts, data):
    cuts = [sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6))) for text in texts]
    spans = [list(zip(own[::2], own[1::2], strict=False)) for own in cuts]
    rendered = rendered_from(texts, spans, [own[:1] for own in spans])
    assert text_strings(rendered) == [(text, own, own[:1]) for text, own in zip(texts, spans, strict=True)]
    assert rendered.texts == texts
    assert rendered.joined == "".join(texts)
    for (start, end), owner in zip(rendered.spans.tolist(), rendered.span_owners.tolist(), strict=True):
        begin = int(rendered.text_offsets[owner])
        rendered.text[begin + start : begin + end].tobytes().decode()  # no span cuts a character


def test_no_digests_where_nobody_needs_them():
    for stage in stages(with_digests=False):
        assert stage.render(conversations([messages("a", "b")])).digests.shape == (0, 16)
    assert np.asarray(stages()[0].render(conversations([messages("a", "b")])).digests).shape == (1, 16)


def test_the_skeleton_of_a_long_layout_is_made_when_it_is_seen_again():
    long, other = messages(*"ab" * 20), messages(*"cd" * 20)
    batch, reference = stages()
    for records, first, fallbacks in (([long], 0, 1), ([messages("a", "b")], 1, 1), ([other, long], 2, 1)):
        given_ = conversations(records, first=first)
        assert comparable(batch.render(given_)) == comparable(reference.render(given_))
        assert batch.fallbacks == fallbacks
    batch, _ = stages()
    batch.render(conversations([long, other]))
    assert batch.fallbacks == 0
