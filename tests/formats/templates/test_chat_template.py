"""Templates: what is rendered, and which characters of it the assistant says, for every way templates have."""

import re
from functools import partial

import pytest
from template_texts import ALWAYS_HEADER, CHATML, GENERATION, LLAMA2, LLAMA2_TRIMS, STOPS, THINKS, TOKENS, TRIMS
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import ChatTemplate, TrainOn, sources, template_source

pytestmark = pytest.mark.unit

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}


def user(text):
    return Turn(role="user", content=text)


def assistant(text, **more):
    return Turn(role="assistant", content=text, **more)


def talk(*turns, tools=()):
    return Conversation(turns=turns, tools=tools)


def said(source, conversation, tokens=TOKENS, **options):
    rendering = ChatTemplate("t", source, tokens, **options).render(conversation)
    return [rendering.text[one.start : one.end] for one in rendering.spoken]


TWO = talk(user("Hi"), assistant("Hello"), user("More"), assistant("Sure"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CHATML, ["Hello<|im_end|>", "Sure<|im_end|>"]),
        (TRIMS, ["Hello<|im_end|>", "Sure<|im_end|>"]),
        (THINKS, ["Hello<|im_end|>", "Sure<|im_end|>"]),
        (ALWAYS_HEADER, ["Hello<|eot_id|>", "Sure<|eot_id|>"]),
        (LLAMA2, [" Hello</s>", " Sure</s>"]),
        (LLAMA2_TRIMS, [" Hello</s>", " Sure</s>"]),
        (GENERATION, ["Hello<|im_end|>", "Sure<|im_end|>"]),
    ],
)
def test_what_the_assistant_says_with_its_stop_token(source, expected):
    assert said(source, TWO) == expected


@pytest.mark.parametrize("source", [CHATML, TRIMS, THINKS, LLAMA2, LLAMA2_TRIMS, GENERATION])
def test_the_text_is_the_plain_rendering(source):
    reference, _ = render_jinja_template([TWO.messages()], chat_template=source, **TOKENS.variables)
    assert ChatTemplate("t", source, TOKENS).render(TWO).text == reference[0]


def test_a_trailing_generation_header_is_cut_off():
    text = ChatTemplate("t", ALWAYS_HEADER, TOKENS).render(TWO).text
    assert text.endswith("Sure<|eot_id|>")
    assert text.count("<|start_header_id|>assistant") == 2


@pytest.mark.parametrize(
    "prompt", ["<|start_header_id|>assistant<|end_header_id|>\n\n<think>\n", "<|user|>", "<|eot_id|>"]
)
def test_a_header_that_is_always_written_is_known_by_what_a_question_ends_with(prompt: str) -> None:
    source = (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{% if m.role == 'assistant' %}Well: {% endif %}{{ m.content }}<|eot_id|>{% endfor %}" + prompt
    )
    said = "{% if m.role == 'assistant' %}Well: {% endif %}{{ m.content }}<|eot_id|>"
    block = "{% generation %}Well: {{ m.content }}<|eot_id|>{% endgeneration %}"
    blocks = source.replace(
        said, "{% if m.role == 'assistant' %}" + block + "{% else %}{{ m.content }}<|eot_id|>{% endif %}"
    )
    assert ChatTemplate("t", blocks, TOKENS).render(TWO).text == ChatTemplate("t", source, TOKENS).render(TWO).text
    rendering = ChatTemplate("t", source, TOKENS).render(TWO)
    assert rendering.text.endswith(prompt) != ("assistant" in prompt)  # what precedes no answer is no header
    assert [rendering.text[one.start : one.end] for one in rendering.spoken][-1].endswith("Sure<|eot_id|>")
    if "assistant" in prompt:
        assert [rendering.text[one.start :][:6] for one in rendering.spoken] == ["Well: ", "Well: "]


def test_white_space_belongs_to_the_turn_exactly_where_the_template_keeps_it():
    conversation = talk(user(" Hi\n"), assistant("\n Hello \n"), user("x"), assistant(" y"))
    assert said(CHATML, conversation) == ["\n Hello \n<|im_end|>", " y<|im_end|>"]
    assert said(TRIMS, conversation) == ["Hello<|im_end|>", "y<|im_end|>"]
    assert said(LLAMA2, conversation) == [" \n Hello \n</s>", "  y</s>"]
    assert said(LLAMA2_TRIMS, conversation) == [" Hello</s>", " y</s>"]
    ends = CHATML.replace("<|im_end|>", "<|end|>")  # which ends a message of gpt-oss, but a turn here
    assert said(ends, conversation) == ["\n Hello \n<|end|>", " y<|end|>"]
    mixed = LLAMA2.replace("' [INST] ' + m.content", "' [INST] ' + m.content | trim")
    assert said(mixed, conversation) == [" \n Hello \n</s>", "  y</s>"]


def test_a_template_that_keeps_white_space_in_some_turns_and_not_in_others():
    half = LLAMA2.replace("[INST] ' + m.content", "[INST] ' + m.content | trim").replace(
        "' ' + m.content", "' ' + (m.content if loop.index0 == 1 else m.content | trim)"
    )
    conversation = talk(user("a"), assistant("\n b"), user("c"), assistant(" d"), user("e"), assistant(" f"))
    assert said(half, conversation) == [" \n b</s>", " d</s>", " f</s>"]


def many(pairs, answer=" <think>{0}</think> a {0}"):
    return talk(*(turn for at in range(pairs) for turn in (user(f" q {at}"), assistant(answer.format(at)))))


MIXED = LLAMA2.replace("' [INST] ' + m.content", "' [INST] ' + m.content | trim")


@pytest.mark.parametrize("source", [CHATML, TRIMS, THINKS, ALWAYS_HEADER, LLAMA2, LLAMA2_TRIMS, MIXED, GENERATION])
def test_a_turn_costs_the_same_however_many_there_are(source, steps):
    template = ChatTemplate("t", source, TOKENS)
    some, more = (steps(partial(template.render, many(pairs))) for pairs in (40, 160))
    assert more < 4.2 * some


@pytest.mark.parametrize("source", [LLAMA2_TRIMS, MIXED])
def test_a_conversation_is_rendered_a_few_times_however_many_turns_it_has(source, monkeypatch):
    template = ChatTemplate("t", source, TOKENS)
    render, calls = template.renderer.render, []
    monkeypatch.setattr(template.renderer, "render", lambda *words: calls.append(1) or render(*words))
    template.render(many(30, " a {0}"))
    assert len(calls) <= 4


def test_same_texts_are_told_apart():
    conversation = talk(user("Hello"), assistant("Hello"), user("Hello"), assistant("Hello"))
    for source in (CHATML, LLAMA2, ALWAYS_HEADER):
        assert len(said(source, conversation)) == 2
    rendering = ChatTemplate("t", LLAMA2, TOKENS).render(conversation)
    assert [rendering.text[: one.start].count("[/INST]") for one in rendering.spoken] == [1, 2]


def test_think_blocks_carry_loss_where_the_template_keeps_them_and_never_when_empty():
    conversation = talk(
        user("Hi"),
        assistant("<think>\nhm\n</think>\n\nHello"),
        user("More"),
        assistant("<think>\nwell\n</think>\n\nSure"),
    )
    assert said(THINKS, conversation) == ["Hello<|im_end|>", "<think>\nwell\n</think>\n\nSure<|im_end|>"]
    empty = talk(user("Hi"), assistant("<think>\n\n</think>\n\nHello"))
    assert said(THINKS, empty) == ["Hello<|im_end|>"]
    assert said(CHATML, empty) == ["Hello<|im_end|>"]
    apart = talk(user("Hi"), assistant("Hello", reasoning="hm"))
    assert said(THINKS, apart) == ["<think>\nhm\n</think>\n\nHello<|im_end|>"]
    assert ChatTemplate("t", CHATML, TOKENS).render(apart).notes == ("reasoning_dropped",)


def test_an_empty_think_block_whose_first_half_is_in_the_header():
    source = CHATML.replace("'<|im_start|>assistant\\n' }}{% endif", "'<|im_start|>assistant\\n<think>\\n' }}{% endif")
    source = source.replace(
        "m.role + '\\n' + m.content",
        "m.role + '\\n' + ('<think>\\n\\n</think>\\n\\n' if m.role == 'assistant' else '') + m.content",
    )
    assert said(source, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]


TOOLS = talk(
    user("Weather?"),
    assistant(None, tool_calls=(CALL,)),
    Turn(role="tool", content="sunny", name="weather"),
    assistant("Sunny."),
    tools=(TOOL,),
)
MISTRAL_TOOLS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    '{% elif m.tool_calls %}{{ \'[TOOL_CALLS] [{"name": "\' + m.tool_calls[0].function.name + \'", "arguments": \' + '
    "m.tool_calls[0].function.arguments + '}]' + eos_token }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' + m.content + '[/TOOL_RESULTS]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


def test_a_turn_that_is_all_tool_calls():
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert said(template_source("chatml"), TOOLS) == [f"{call}<|im_end|>", "Sunny.<|im_end|>"]


def test_tool_calls_in_the_spelling_that_the_template_takes():
    call = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]</s>'
    assert said(MISTRAL_TOOLS, TOOLS) == [call, " Sunny.</s>"]


@pytest.mark.parametrize("source", [CHATML.replace("m.content", "m['content'] + m.get('reasoning', '')")])
def test_the_record_s_own_key_of_reasoning_is_rendered_where_a_template_reads_it(source):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "reasoning": " Greet"}]
    alias = talk(user("Hi"), assistant("Hello", reasoning=" Greet", reasoning_alias=True))
    reference, _ = render_jinja_template([messages], chat_template=source)
    assert ChatTemplate("t", source, TOKENS).render(alias).text == reference[0]
    assert said(source, alias) == ["Hello Greet<|im_end|>"]
    rendering = ChatTemplate("t", source, TOKENS).render(talk(user("Hi"), assistant("Hello", reasoning=" Greet")))
    assert rendering.notes == ("reasoning_dropped",)


def test_a_turn_that_is_all_calls_has_no_content_or_an_empty_one_and_never_null():
    """transformers leaves keys out whose value is null, so a template cannot ask for it."""
    calls = "{% for c in m.tool_calls %}{{ c.function.name + '!' + c.function.arguments.city }}{% endfor %}"
    source = (
        "{% for m in messages %}{{ m.role + ':' }}{% if m.tool_calls %}" + calls + "{{ '<|eot_id|>' }}{% endif %}"
        "{% if m['content'] is not none %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    rendering = ChatTemplate("t", source, TOKENS).render(talk(user("Hi"), assistant(None, tool_calls=(CALL,))))
    assert rendering.text == "user:Hi<|im_end|>assistant:weather!Paris<|eot_id|><|im_end|>"


def test_nothing_that_was_said_may_be_lost():
    def why(source, conversation):
        with pytest.raises(RecordError) as caught:
            said(source, conversation)
        return caught.value.reason

    assert why(CHATML.replace("m.content", "(m.content or '')"), TOOLS) == "turn_not_rendered"  # tool calls
    drops_system = CHATML.replace("{{ '<|im_start|>'", "{% if m.role != 'system' %}{{ '<|im_start|>'").replace(
        "'<|im_end|>\\n' }}{% endfor", "'<|im_end|>\\n' }}{% endif %}{% endfor"
    )
    system = Turn(role="system", content="Be kind")
    assert why(drops_system, talk(system, *TWO.turns)) == "turn_not_rendered"
    for broken in (
        CHATML.replace("+ m.content", "+ m.content + m.content"),
        CHATML.replace("m.content", "m.content[1:]"),
    ):
        with pytest.raises(UsageError, match=r"turn repeated|turn not rendered|marks change rendering"):
            said(broken, TWO)
    assert (
        why(
            LLAMA2.replace("{% endif %}{% endfor", "{% else %}{{ raise_exception('no') }}{% endif %}{% endfor"),
            talk(system, *TWO.turns),
        )
        == "template_error"
    )


NEEDS_TOOLS = "{% for tool in tools %}{{ '# ' + tool.function.name + '\\n' }}{% endfor %}" + CHATML


def test_a_second_template_that_needs_tools_is_probed_with_one():
    """As the `tool_use` of Hermes: it iterates over the tools, and None ends it."""
    template = ChatTemplate("t", CHATML, TOKENS, with_tools=NEEDS_TOOLS)
    assert not template.render(TWO).text.startswith("#"), "records without tools take the first"
    rendering = template.render(talk(*TWO.turns, tools=(TOOL,)))
    reference, _ = render_jinja_template([TWO.messages()], tools=[TOOL], chat_template=NEEDS_TOOLS, **TOKENS.variables)
    assert rendering.text == reference[0]
    assert rendering.text.startswith("# weather\n<|im_start|>user")
    assert [rendering.text[one.start : one.end] for one in rendering.spoken] == ["Hello<|im_end|>", "Sure<|im_end|>"]


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (NEEDS_TOOLS.replace("tools %}", "tools.missing.more %}"), "cannot render one question and its answer"),
        (NEEDS_TOOLS.replace("<|im_end|>", ""), "turn end unknown"),
        ("{% for", "line 1"),
    ],
)
def test_the_refusal_of_a_second_template_says_that_it_is_the_second(source, match):
    with pytest.raises(UsageError, match=rf"template t \(the second one, tool_use, for records with tools\): {match}"):
        ChatTemplate("t", CHATML, TOKENS, with_tools=source)
    with pytest.raises(UsageError, match=r"^template t: "):
        ChatTemplate("t", source, TOKENS)


def test_a_template_that_never_stops_is_refused_with_a_remedy():
    with pytest.raises(UsageError, match=r"no stop token right after turn 1.*--template"):
        ChatTemplate("t", CHATML.replace("<|im_end|>", ""), TOKENS)
    with pytest.raises(UsageError, match="generation block"):
        ChatTemplate("t", GENERATION.replace("<|im_end|>", ""), TOKENS)


def test_a_stop_token_of_a_later_turn_does_not_count():
    only_at_the_end = "{% for m in messages %}{{ m.role + ': ' + m.content + ' ' }}{% if loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    assert said(only_at_the_end, talk(user("Hi"), assistant("Hello"))) == ["Hello </s>"]
    with pytest.raises(RecordError, match="turn_end_unknown"):
        said(only_at_the_end, TWO)


def test_generation_blocks_are_honoured_and_end_with_the_stop_token():
    inside = GENERATION.replace(
        "{{ m.content }}{% endgeneration %}", "{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}"
    )
    inside = inside.replace("{% endif %}{{ '<|im_end|>\\n' }}", "{{ '<|im_end|>\\n' }}{% endif %}")
    assert said(inside, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]
    with pytest.raises(RecordError, match="generation_blocks"):
        said(
            GENERATION.replace("{% generation %}", "{% if loop.last %}{% generation %}").replace(
                "{% endgeneration %}", "{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
            ),
            TWO,
        )


def test_typed_control_tokens_are_told_from_the_template_s():
    conversation = talk(user("a <|im_end|> b"), assistant("<|im_start|>assistant\nc</s>"))
    rendering = ChatTemplate("t", CHATML, TOKENS).render(conversation)
    assert [rendering.text[start:end] for start, end in rendering.typed] == ["<|im_end|>", "<|im_start|>", "</s>"]
    assert [rendering.text[one.start : one.end] for one in rendering.spoken] == [
        "<|im_start|>assistant\nc</s><|im_end|>"
    ]
    meant = ChatTemplate("t", CHATML, TOKENS, allow_control_tokens=True).render(
        talk(user("a <|im_end|> b"), assistant("c"))
    )
    assert meant.typed == ()


def test_tools_that_a_template_does_not_show_are_noted():
    rendering = ChatTemplate("t", CHATML, TOKENS).render(Conversation(turns=TWO.turns, tools=(TOOL,)))
    assert rendering.notes == ("tools_ignored",)


def test_a_second_template_is_taken_for_conversations_with_tools():
    template = ChatTemplate("t", CHATML, TOKENS, with_tools=template_source("chatml"))
    rendering = template.render(TOOLS)
    assert '"name": "weather"' in rendering.text
    assert rendering.notes == ()
    assert template.render(TWO).text.count("<tools>") == 0


def test_developer_is_system_where_a_template_knows_no_developer():
    conversation = talk(Turn(role="developer", content="Be kind"), *TWO.turns)
    assert ChatTemplate("t", CHATML, TOKENS).render(conversation).text.startswith("<|im_start|>system\nBe kind")
    knows = "{# developer #}" + CHATML
    assert ChatTemplate("t", knows, TOKENS).render(conversation).text.startswith("<|im_start|>developer\nBe kind")


def test_noncharacters_in_a_text_are_refused():
    with pytest.raises(RecordError, match="reserved_character"):
        said(CHATML, talk(user("a \ufdd0 b"), assistant("c")))


@pytest.mark.parametrize("name", sorted(sources()))
def test_built_in_templates(name):
    template = ChatTemplate(name, template_source(name), TOKENS)
    rendering = template.render(TWO)
    texts = [rendering.text[one.start : one.stop] for one in rendering.spoken]
    assert [text.strip() for text in texts] == ["Hello", "Sure"]
    assert all(rendering.text[one.stop : one.end] in STOPS for one in rendering.spoken)
    between = rendering.text[rendering.spoken[0].end : rendering.spoken[1].start]
    assert "More" in between
    assert rendering.text.startswith("<s>")
    assert not rendering.text.startswith("<s><s>")
    # What inference feeds, rendered by transformers, is what stands before the assistant's words.
    prompt, _ = render_jinja_template(
        [TWO.messages()[:3]], chat_template=template_source(name), add_generation_prompt=True, **TOKENS.variables
    )
    assert prompt[0] == rendering.text[: rendering.spoken[1].start]


@pytest.mark.parametrize("name", sorted(set(sources()) - {"gemma"}))
def test_built_in_templates_take_a_system_prompt(name):
    conversation = talk(Turn(role="system", content="Be kind"), *TWO.turns)
    assert "Be kind" in ChatTemplate(name, template_source(name), TOKENS).render(conversation).text


def test_alpaca_is_stanford_s_text():
    with_input = talk(Turn(role="user", content="Add", context="1 2"), assistant("3"))
    assert ChatTemplate("alpaca", template_source("alpaca"), TOKENS).render(with_input).text == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n3</s>"
    )
    assert "paired with an input" not in ChatTemplate("alpaca", template_source("alpaca"), TOKENS).render(TWO).text


def test_train_on():
    conversation = talk(
        user("a"),
        assistant("<think>\nx\n</think>\n\nb", weight=0),
        user("c"),
        assistant("d", tool_calls=(CALL,)),
    )
    rendering = ChatTemplate("chatml", template_source("chatml"), TOKENS).render(conversation)

    def trained(**policy):
        return [rendering.text[start:end] for start, end in TrainOn(**policy).spans(rendering, conversation)]

    first = "<think>\nx\n</think>\n\nb<|im_end|>"
    call = '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert trained() == [first, f"d{call}<|im_end|>"]
    assert trained(turns="last") == [f"d{call}<|im_end|>"]
    assert trained(turns="weight") == [f"d{call}<|im_end|>"]
    assert trained(reasoning=False) == ["b<|im_end|>", f"d{call}<|im_end|>"]
    assert trained(tool_calls=False) == [first, "d", "<|im_end|>"]
    assert trained(turns="everything") == [rendering.text]


def test_no_template_of_that_name():
    with pytest.raises(UsageError, match=re.escape("did you mean 'chatml'")):
        template_source("chatnl")
