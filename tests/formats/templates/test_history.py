"""Turns that templates rewrite, against a loop over transformers' renderings of every beginning of a conversation."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from rewriting_templates import REWRITES, TOKENS, TOOL, conversations, generated, is_rewritten, speakers, written

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import ChatTemplate, TrainOn, train
from sft_shards.formats.templates.history import kinds

pytestmark = pytest.mark.unit

TEMPLATES = {name: ChatTemplate(name, source, TOKENS) for name, source in REWRITES.items()}
EVERY = pytest.mark.parametrize("name", REWRITES)
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"x": "y"}}}
REASONED = Conversation(
    turns=(
        Turn(role="user", content="Hi"),
        Turn(role="assistant", content="Hello!", reasoning="Greet"),
        Turn(role="user", content="More"),
        Turn(role="assistant", content="Sure", reasoning="Why not"),
    )
)


def said(trained):
    """The trained texts of the one text that a conversation has."""
    (text,) = trained.texts
    return [text.rendering.text[start:end] for start, end in text.spans]


def trained_turns(trained):
    (text,) = trained.texts
    starts = {start for start, _ in text.spans}
    return [one.turn for one in text.rendering.spoken if one.start in starts]


@EVERY
@settings(max_examples=12)
@given(conversations())
def test_skip_trains_the_turns_that_stand_as_inference_meets_them(name, conversation):
    kept = [one for one in speakers(conversation) if not is_rewritten(REWRITES[name], conversation, one)]
    try:
        found = train(TEMPLATES[name], conversation, TrainOn(rewritten="skip"))
    except RecordError as error:
        assert (error.reason, kept) == ("turn_rewritten", [])
        return
    assert trained_turns(found) == kept
    assert said(found) == [generated(REWRITES[name], conversation, one)[1] for one in kept]
    assert found.notes.count("rewritten_turns_without_loss") == len(speakers(conversation)) - len(kept)


@EVERY
@settings(max_examples=12)
@given(conversations())
def test_refuse_leaves_out_what_has_a_rewritten_turn(name, conversation):
    rewritten = [one for one in speakers(conversation) if is_rewritten(REWRITES[name], conversation, one)]
    try:
        found = train(TEMPLATES[name], conversation, TrainOn(rewritten="refuse"))
    except RecordError as error:
        assert error.reason == "turn_rewritten"
        assert f"turn {rewritten[0]} " in error.detail
    else:
        assert not rewritten
        assert trained_turns(found) == speakers(conversation)


def loses_reasoning(source, conversation, number):
    """Whether a turn's reasoning is generated, and the whole rendering does not hold it."""
    turn = conversation.turns[number]
    words = turn.reasoning or (turn.content or "").partition("</think>")[0].removeprefix("<think>").strip()
    lost = words not in written(source, conversation)
    return bool(words) and lost and words in written(source, conversation, number)


@EVERY
@settings(max_examples=12)
@given(conversations())
def test_auto_leaves_out_what_lost_its_reasoning_and_nothing_else(name, conversation):
    lost = [one for one in speakers(conversation) if loses_reasoning(REWRITES[name], conversation, one)]
    kept = [one for one in speakers(conversation) if one not in lost]
    try:
        found = train(TEMPLATES[name], conversation, TrainOn())
    except RecordError as error:
        assert (error.reason, kept) == ("turn_rewritten", [])
        return
    assert trained_turns(found) == kept
    assert found.notes.count("rewritten_turns_without_loss") == len(lost)
    as_before = train(TEMPLATES[name], conversation, TrainOn(rewritten="train"))
    assert trained_turns(as_before) == speakers(conversation)
    assert as_before.texts[0].rendering == found.texts[0].rendering


@EVERY
@settings(max_examples=12)
@given(conversations(reasoning=False))
def test_other_differences_are_counted_by_the_kind_of_the_conversation(name, conversation):
    rewritten = any(is_rewritten(REWRITES[name], conversation, one) for one in speakers(conversation))
    noted = "history_rewritten" in train(TEMPLATES[name], conversation, TrainOn()).notes
    assert noted >= (rewritten and bool(kinds(conversation) & {"rounds", "steps"}))
    if name in ("keeps everything", "never shows reasoning", "drops reasoning before the last question"):
        assert not noted


def test_the_first_of_two_answers_of_qwen3():
    template = TEMPLATES["as Qwen3"]
    last = "<think>\nWhy not\n</think>\n\nSure<|im_end|>"
    assert said(train(template, REASONED, TrainOn())) == [last]
    assert said(train(template, REASONED, TrainOn(rewritten="train"))) == ["Hello!<|im_end|>", last]
    assert said(train(template, REASONED, TrainOn(turns="last", rewritten="refuse"))) == [last]
    everything = train(template, REASONED, TrainOn(turns="everything"))
    assert said(everything) == [written(REWRITES["as Qwen3"], REASONED)]


def test_a_conversation_of_which_no_turn_is_left_says_so():
    asked = Conversation(turns=REASONED.turns[:3])
    with pytest.raises(RecordError, match="the template rewrites every turn that would be trained, turn 1 first"):
        train(TEMPLATES["as Qwen3"], asked, TrainOn())


def test_histories_that_are_too_long_to_ask_for_are_refused_at_once():
    turns = (Turn(role="user", content="Q" * 4000), Turn(role="assistant", content="A" * 4000)) * 300
    with pytest.raises(RecordError) as caught:
        train(TEMPLATES["as Qwen3"], Conversation(turns=turns), TrainOn(rewritten="skip"))
    assert caught.value.reason == "history_too_long"


@pytest.mark.parametrize(
    ("roles", "expected"),
    [("ua", ""), ("uau", "rounds"), ("suaua", "system rounds"), ("uata", "steps"), ("uaa", "steps")],
)
def test_kinds_of_conversations(roles, expected):
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    conversation = Conversation(turns=tuple(Turn(role=names[one], content="x") for one in roles))
    assert kinds(conversation) == set(expected.split())


@EVERY
@settings(max_examples=12)
@given(conversations())
def test_unroll_trains_every_turn_once_behind_what_inference_is_fed(name, conversation):
    found = train(TEMPLATES[name], conversation, TrainOn(rewritten="unroll"))
    assert sorted(number for text in found.texts for number in text.turns) == speakers(conversation)
    histories = {"".join(generated(REWRITES[name], conversation, number)) for number in speakers(conversation)}
    for text in found.texts:
        for number, (start, end) in zip(text.turns, text.spans, strict=True):
            prompt, answer = generated(REWRITES[name], conversation, number)
            assert (text.rendering.text[:start], text.rendering.text[start:end]) == (prompt, answer)
    last = [one for one in histories if not any(other != one and other.startswith(one) for other in histories)]
    assert len(found.texts) == len(last), "one text for each history"


@pytest.mark.parametrize("turns", ["last", "weight"])
def test_unroll_trains_the_turns_that_are_chosen(turns):
    muted = replace(REASONED, turns=(REASONED.turns[0], replace(REASONED.turns[1], weight=0), *REASONED.turns[2:]))
    found = train(TEMPLATES["as Qwen3"], muted, TrainOn(turns=turns, rewritten="unroll"))
    assert [text.turns for text in found.texts] == [(3,)]


def test_a_template_that_strips_the_last_answer_alone_rewrites_history():
    source = REWRITES["keeps everything"].replace("{{- content }}", "{{- content | trim if last else content }}")
    talk = Conversation(
        turns=tuple(replace(turn, content=f" {turn.content} ", reasoning=None) for turn in REASONED.turns)
    )
    found = train(ChatTemplate("t", source, TOKENS), talk, TrainOn(rewritten="unroll"))
    assert [text.turns for text in found.texts] == [(1,), (3,)]
    assert "history_rewritten" not in train(ChatTemplate("t", source, TOKENS), talk, TrainOn()).notes, "by kind alone"


def test_unroll_refuses_a_turn_that_no_prompt_leads_to():
    source = REWRITES["prompt opens the block"].replace("(last or reasoning)", "reasoning")
    template = ChatTemplate("t", source, TOKENS)
    plain = Conversation(turns=(Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello")))
    with pytest.raises(RecordError) as caught:
        train(template, plain, TrainOn(rewritten="unroll"))
    assert caught.value.reason == "turn_not_generated"


def test_reasoning_that_a_template_reads_under_one_key_is_forgotten_only_where_it_has_that_key():
    """Solar Open reads `reasoning` alone, and writes it in the last turns alone."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.reasoning and loop.last %}"
        "{{ '<think>' + m.reasoning + '</think>' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    template = ChatTemplate("solar", source, TOKENS)
    alias = replace(
        REASONED, turns=tuple(replace(turn, reasoning_alias=bool(turn.reasoning)) for turn in REASONED.turns)
    )
    assert said(train(template, alias, TrainOn())) == ["<think>Why not</think>Sure<|im_end|>"]
    assert said(train(template, REASONED, TrainOn())) == ["Hello!<|im_end|>", "Sure<|im_end|>"]


def test_reasoning_that_is_all_of_a_call_s_content_is_forgotten_with_it():
    """gpt-oss writes the content of a call as analysis, and leaves the analysis out once a final answer follows."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.tool_calls %}"
        "{{ m.content if m.content and loop.last else '' }}{{ '!' + (m.tool_calls[0].function | tojson) }}"
        "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    call = {"type": "function", "function": {"name": "look", "arguments": {"x": "y"}}}
    turns = (
        Turn(role="user", content="Weather?"),
        Turn(role="assistant", content="<think>\nWhich?\n</think>\n\n", tool_calls=(call,)),
        Turn(role="tool", content="sunny"),
        Turn(role="assistant", content="It is clear."),
    )
    found = train(ChatTemplate("harmony", source, TOKENS), Conversation(turns=turns), TrainOn())
    assert said(found) == ["It is clear.<|im_end|>"]
    assert "reasoning_dropped" in found.notes
    never = source.replace("m.content if m.content and loop.last else ''", "''")  # Cohere's
    found = train(ChatTemplate("cohere", never, TOKENS), Conversation(turns=turns), TrainOn())
    assert said(found) == ['!{"name": "look", "arguments": {"x": "y"}}<|im_end|>', "It is clear.<|im_end|>"]


def test_reasoning_that_is_left_out_before_any_question_was_never_written_there():
    """Qwen3 writes reasoning behind the last question; a turn that begins a conversation has none even at its end."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.reasoning_content and loop.index0 and loop.last %}"
        "{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    begins = replace(REASONED, turns=REASONED.turns[1:])
    last = "<think>Why not</think>Sure<|im_end|>"
    assert said(train(ChatTemplate("begins", source, TOKENS), begins, TrainOn())) == ["Hello!<|im_end|>", last]
    at_any = source.replace("loop.index0 and ", "")
    assert said(train(ChatTemplate("last", at_any, TOKENS), begins, TrainOn())) == [last]
    typed = replace(begins, turns=(Turn(role="user", content="<tool_response>4</tool_response>"), *begins.turns))
    asked = source.replace("and loop.index0", "and '<tool_response>' not in messages[0].content")
    assert said(train(ChatTemplate("typed", asked, TOKENS), typed, TrainOn())) == ["Hello!<|im_end|>", "Sure<|im_end|>"]
    assert said(train(ChatTemplate("last", at_any, TOKENS), typed, TrainOn())) == [last]
    asks = at_any.replace(
        "{% for m", "{% if messages[-1] == messages[0] %}{{ messages[0].content.none() }}{% endif %}{% for m", 1
    )
    refuses = asks.replace("messages[-1] == messages[0]", "messages | length == 1 and messages[0].role == 'assistant'")
    assert said(train(ChatTemplate("refuses", refuses, TOKENS), begins, TrainOn())) == [last]


def test_unroll_knows_of_system_prompts_that_a_template_moves_to_the_front():
    """DeepSeek V4 does, and rewrites nothing else."""
    moves = "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    plain = REWRITES["never shows reasoning"].replace(
        "for m in messages %}\n", "for m in messages if m.role != 'system' %}\n"
    )
    template = ChatTemplate("moves", moves + plain, TOKENS)
    turns = (Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello!"))
    late = Conversation(turns=(*turns, Turn(role="system", content="Be brief"), *turns))
    first, last = train(template, late, TrainOn(rewritten="unroll")).texts
    assert (first.turns, last.turns) == ((1,), (4,))
    assert first.rendering.text == written(moves + plain, late, 1)
    assert trained_turns(train(template, late, TrainOn(rewritten="skip"))) == [4]
    assert train(template, late, TrainOn()).notes == ("history_rewritten",)
    assert train(template, replace(late, turns=late.turns[2:]), TrainOn()).notes == ()


def test_a_first_turn_that_lost_its_reasoning_is_rewritten_though_nothing_is_fed_before_it():
    template = TEMPLATES["as Qwen3"]
    begins = replace(REASONED, turns=REASONED.turns[1:])
    assert trained_turns(train(template, begins, TrainOn(rewritten="skip"))) == [2]
    with pytest.raises(RecordError, match="put a user's turn before it"):
        train(template, begins, TrainOn(rewritten="unroll"))


def test_a_second_template_that_takes_nothing_without_tools_is_asked_with_a_tool():
    plain = REWRITES["never shows reasoning"]
    template = ChatTemplate(
        "two", plain, TOKENS, with_tools="{% for t in tools %}{{ t.function.name }}{% endfor %}" + plain
    )
    turns = (REASONED.turns[0], Turn(role="assistant", tool_calls=(CALL,)), Turn(role="tool", content="1"))
    conversation = Conversation(turns=(*turns, *REASONED.turns[1:]), tools=(TOOL,))
    assert said(train(template, conversation, TrainOn()))[1:] == ["Hello!<|im_end|>", "Sure<|im_end|>"]
    assert train(template, conversation, TrainOn(rewritten="unroll")).texts[0].turns == (1, 3, 5)
    assert not template.suited(conversation).rewriting.rewrites


SPACED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '    <|im_start|>assistant    ' + m.content + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '  <|im_start|>assistant' }}{% endif %}"
)


def test_a_template_that_never_writes_its_prompts_rewrites_the_only_turn_too():
    template, asked = ChatTemplate("spaced", SPACED, TOKENS), Conversation(turns=REASONED.turns[:2])
    with pytest.raises(RecordError, match="turn 1 ") as caught:
        train(template, asked, TrainOn(rewritten="refuse"))
    assert caught.value.reason == "turn_rewritten"
    assert "history_rewritten" in train(template, asked, TrainOn()).notes


def test_unroll_refuses_a_turn_whose_prompt_is_longer_than_what_is_rendered():
    template = ChatTemplate("spaced", SPACED.replace("assistant' }}", "assistant' + '\\n' * 99 }}"), TOKENS)
    with pytest.raises(RecordError, match="turn 1 does not stand behind its generation prompt") as caught:
        train(template, Conversation(turns=REASONED.turns[:2]), TrainOn(rewritten="unroll"))
    assert caught.value.reason == "turn_not_generated"


def test_reasoning_that_no_call_shows_is_not_forgotten_though_a_bare_call_is_refused():
    # As Falcon: reasoning is never written, and the header only in front of a text.
    source = (
        "{% for m in messages %}{% if m.content %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ '<tool_call>' + (c.function | tojson) + '</tool_call>' }}{% endfor %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    beside = replace(REASONED.turns[1], tool_calls=(call,))
    result = Turn(role="tool", content="sunny", name="weather")
    conversation = Conversation(turns=(REASONED.turns[0], beside, result, REASONED.turns[3]))
    trained = said(train(ChatTemplate("falcon", source, TOKENS), conversation, TrainOn()))
    call = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    assert trained == [f"Hello!{call}<|im_end|>", "Sure<|im_end|>"]
