"""Where turns start and stop, and which generation blocks are believed."""

import json
from dataclasses import replace

import pytest
from template_texts import CHATML, GENERATION, TOKENS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import get
from sft_shards.formats.records.fields import FieldMap
from sft_shards.formats.templates import ChatTemplate, TemplateTokens

pytestmark = pytest.mark.unit

CALL = {"type": "function", "id": "functions.weather:0", "function": {"name": "weather", "arguments": {}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}


def user(text):
    return Turn(role="user", content=text)


def assistant(text, **more):
    return Turn(role="assistant", content=text, **more)


AGENTIC = Conversation(
    turns=(
        user("Weather?"),
        assistant(None, tool_calls=(CALL,)),
        Turn(role="tool", content="sunny", name="weather"),
        assistant("It is clear."),
        user("Thanks"),
        assistant("Welcome."),
    ),
    tools=(TOOL,),
)
TWO = Conversation(turns=(user("Hi"), assistant("Hello"), user("More"), assistant("Sure")))


def said(source, conversation, tokens=TOKENS):
    rendering = ChatTemplate("t", source, tokens).render(conversation)
    return [rendering.text[one.start : one.end] for one in rendering.spoken]


def why(source, conversation, tokens=TOKENS):
    with pytest.raises(RecordError) as caught:
        said(source, conversation, tokens)
    return caught.value.reason


PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}{{ '<tool_call>' + c.function.name + '</tool_call>' }}{% endfor %}"
# Writes earlier turns without the `<think>` that the generation prompt ends with.
PROMPT_THINKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}"
    "{% endif %}{{ m.content or '' }}" + CALLS + "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)


def test_a_call_turn_without_the_think_tag_that_the_prompt_ends_with():
    assert said(PROMPT_THINKS, AGENTIC) == [
        "<tool_call>weather</tool_call><|im_end|>",
        "It is clear.<|im_end|>",
        "Welcome.<|im_end|>",
    ]


# Indented as templates are that trim no blocks: history has other white space than the generation prompt.
SPACED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '\\t<|im_start|>assistant    ' + (m.content or '') }}"
    + CALLS
    + "{{ '<|im_end|>' }}{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '  <|im_start|>assistantEND' }}{% endif %}"
)


@pytest.mark.parametrize(("end", "generated"), [("", "    "), ("\\n", "")])
def test_a_history_with_other_white_space_than_the_prompt(end, generated):
    source = SPACED.replace("END", end)
    call, *answers = said(source, AGENTIC)
    assert call == generated + "<tool_call>weather</tool_call><|im_end|>"
    assert answers == [generated + "It is clear.<|im_end|>", generated + "Welcome.<|im_end|>"]
    padded = Conversation(turns=(user("Hi"), assistant(" \n Hello ")))
    assert said(source, padded) == [generated + " \n Hello <|im_end|>"]
    stripped = source.replace("(m.content or '')", "(m.content or '') | trim")
    assert said(stripped, padded) == [generated + "Hello<|im_end|>"]


def test_a_call_whose_reasoning_is_inlined_behind_other_white_space_than_the_prompt_s():
    thought = "<think>\nLook.\n</think>\n\n"
    turns = (user("Weather?"), assistant(thought, tool_calls=(CALL,)), AGENTIC.turns[2], assistant(thought + "Clear."))
    shown = "(m.content if m.tool_calls else m.content.split('</think>')[-1])"  # so in copies of DeepSeek V3.1
    source = SPACED.replace("END", "").replace("(m.content or '')", shown)
    assert said(source, Conversation(turns=turns, tools=(TOOL,))) == [
        "    " + thought + "<tool_call>weather</tool_call><|im_end|>",
        "    \n\nClear.<|im_end|>",
    ]


def test_a_turn_behind_a_text_that_was_moved_begins_behind_the_words_that_prompts_end_with():
    moves = "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    source = SPACED.replace("END", "").replace("{% if m.role", "{% if m.role == 'system' %}{% elif m.role", 1)
    system = Turn(role="system", content="Be brief")
    conversation = Conversation(turns=(*TWO.turns[:2], system, *TWO.turns[2:]))
    assert said(moves + source, conversation) == ["    Hello<|im_end|>", "    Sure<|im_end|>"]
    twice = moves + source.replace(
        "'\\t<|im_start|>assistant    '", "'\\t<|im_start|>assistant <|im_start|>assistant '"
    )
    assert why(twice, conversation) == "turn_start_unknown"


def test_a_call_whose_question_has_a_system_prompt_in_front_of_it_in_prompts_alone():
    # As Mistral's: the last question has the system prompt, and no generation prompt follows it.
    asked = "{{ '[INST]' + ('Be brief. ' if loop.last else '') + m.content + '[/INST]' }}"
    answer = "{{ (m.content or '') }}" + CALLS + "<|im_end|>"
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        + answer
        + "{% else %}"
        + asked
        + "{% endif %}{% endfor %}"
    )
    call, *answers = said(source, AGENTIC)
    assert call == "<tool_call>weather</tool_call><|im_end|>"
    assert answers == ["It is clear.<|im_end|>", "Welcome.<|im_end|>"]


def test_words_between_every_answer_and_the_stop_token_are_generated():
    # As Kimi K3's: tags of two control tokens and a word.
    close = "<|im_start|>/text<|im_start|>"
    source = CHATML.replace("'<|im_end|>", f"'{close}<|im_end|>")
    assert said(source, TWO) == [f"Hello{close}<|im_end|>", f"Sure{close}<|im_end|>"]
    other = source.replace(f"'{close}", f"('{close}' if loop.last else '{close}!') + '")
    assert why(other, TWO) == "turn_end_unknown"


def test_a_header_that_is_written_in_the_question_with_other_white_space_than_in_the_prompt():
    source = SPACED.replace("END", "\\n").replace("'\\t<|im_start|>assistant    ' +", "'    ' +")
    source = source.replace("+ m.content }}{% endif", "+ m.content + '<|im_start|>assistant' }}{% endif")
    source = source.replace("  <|im_start|>assistant\\n", "\\n")
    answers = [text.strip() for text in said(source, AGENTIC)]
    assert answers == ["<tool_call>weather</tool_call><|im_end|>", "It is clear.<|im_end|>", "Welcome.<|im_end|>"]
    assert said(source, AGENTIC)[0] == "<tool_call>weather</tool_call><|im_end|>"


def test_before_a_first_turn_of_the_assistant_inference_feeds_nothing():
    begins = Conversation(turns=(assistant("Welcome"), *TWO.turns))
    # The loop over messages writes the generation prompt, so that an empty conversation has none.
    inside = CHATML.replace("{% endfor %}{% if add", "{% if loop.last and add") + "{% endfor %}"
    for source in (
        inside,
        "A system prompt\n" + inside.replace("assistant\\n' }}{% endif", "assistant\\n<think>' }}{% endif"),
    ):
        rendering = ChatTemplate("t", source, TOKENS).render(begins, by_rule=True)
        assert rendering.text[rendering.spoken[0].start : rendering.spoken[0].end] == "Welcome<|im_end|>"
    bare = "{% for m in messages %}{{ m.content + ('</s>' if m.role == 'assistant' else '\\n') }}{% endfor %}"
    called = Conversation(turns=(assistant(None, tool_calls=(CALL,)), *AGENTIC.turns[2:]), tools=(TOOL,))
    calling = bare.replace("m.content +", "(m.content or m.tool_calls[0].function.name) +")
    with pytest.raises(RecordError, match="put a user's turn before it") as caught:
        said(calling, called)
    assert caught.value.reason == "turn_start_unknown"


def test_an_answer_that_brings_the_think_tag_of_the_prompt():
    source = CHATML.replace("'<|im_start|>assistant\\n' }}{% endif", "'<|im_start|>assistant\\n<think>\\n' }}{% endif")
    inlined = Conversation(turns=(user("Hi"), assistant("<think>\nhm\n</think>\n\nHello")))
    assert said(source, inlined) == ["hm\n</think>\n\nHello<|im_end|>"]


def test_words_that_only_a_system_prompt_puts_before_answers_are_generated():
    source = (
        "{% set system = messages[0].role == 'system' %}{% for m in messages %}"
        "{% if m.role == 'assistant' %}{{ ('Answer: ' if system else '') + m.content + '</s>' }}"
        "{% else %}{{ '<s>' + m.content + '<|user|>' }}{% endif %}{% endfor %}"
    )
    conversation = Conversation(turns=(Turn(role="system", content="Be kind"), *TWO.turns))
    assert said(source, conversation) == ["Answer: Hello</s>", "Answer: Sure</s>"]
    assert said(source, TWO) == ["Hello</s>", "Sure</s>"]


def test_a_tool_s_result_inside_of_the_assistant_s_turn():
    source = (
        "{% for m in messages %}{% if m.role == 'tool' %}{% elif m.tool_calls %}"
        "{{ '<|im_start|>assistant\\n' + m.tool_calls[0].function.name + '[' + messages[loop.index].content + ']' "
        "+ (m.content or '') + '<|im_end|>\\n' }}{% else %}"
        "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}" + PROMPT
    )
    beside = Conversation(
        turns=(
            user("Weather?"),
            assistant("Looking", tool_calls=(CALL,)),
            Turn(role="tool", content="sunny", name="weather"),
            assistant("It is clear."),
        ),
        tools=(TOOL,),
    )
    assert why(source, beside) == "turn_interrupted"


BLOCKS = GENERATION + PROMPT


def test_blocks_that_lose_calls_or_texts_are_not_believed():
    assert said(BLOCKS, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]
    assert why(BLOCKS.replace("m.content", "(m.content or '')"), AGENTIC) == "turn_not_rendered"
    drops = BLOCKS.replace("{{ m.content }}{% endif %}", "{{ m.content if m.role == 'user' else '' }}{% endif %}")
    system = Turn(role="system", content="Be kind")
    assert why(drops, Conversation(turns=(system, *TWO.turns))) == "turn_not_rendered"


def test_blocks_that_hold_the_header_do_not_train_it():
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% generation %}{{ '<|im_start|>assistant\\n' + m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}" + PROMPT
    )
    assert said(source, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]


def test_a_block_with_the_header_of_an_answer_that_the_template_cuts_at_its_think_tag():
    # As Laguna's, whose prompt says that there is no reasoning; "A </think> B" becomes reasoning and an answer.
    cut = "{% set p = m.content.split('</think>') %}{{ '<think>\n' + p[0] + '</think>' + p[1] if p[1:] else '</think>' + p[0] }}"
    block = "{% generation %}<|im_start|>assistant\n" + cut + "<|im_end|>{% endgeneration %}\n"
    user_ = "{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% else %}" + block + "{% endif %}"
    prompt = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n</think>' }}{% endif %}"
    source = "{% for m in messages %}" + user_ + "{% endfor %}" + prompt
    asked = Conversation(turns=(user("Why <think>?"), assistant("A </think> closes it.")))
    assert said(source, asked) == ["<think>\nA </think> closes it.<|im_end|>"]
    hidden = source.replace("'<think>\n' + p[0]", "'<thought>' + p[0]")
    assert why(hidden, asked) == "turn_start_unknown"


def test_blocks_around_the_user_s_text_are_refused():
    everything = "{% generation %}" + CHATML.split("{% if add")[0] + "{% endgeneration %}"
    question = Conversation(turns=TWO.turns[:2])
    with pytest.raises(Exception, match="generation block"):
        said(everything, question)


def test_two_blocks_of_one_turn_the_second_around_the_stop_token():
    source = GENERATION.replace(
        "{% endgeneration %}", "{% endgeneration %}{% generation %}{{ '<|im_end|>' }}{% endgeneration %}"
    ).replace("{% endif %}{{ '<|im_end|>\\n' }}", "{{ '<|im_end|>' }}{% endif %}{{ '\\n' }}")
    assert said(source, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]


def test_a_template_that_writes_no_arguments_of_calls():
    source = CHATML.replace("m.content", "(m.content or '')").replace("{{ '<|im_end|>", CALLS + "{{ '<|im_end|>")
    source = source.replace("+ '<|im_end|>\\n' }}", "}}" + CALLS + "{{ '<|im_end|>\\n' }}")
    assert said(source, AGENTIC)[0] == "<tool_call>weather</tool_call><|im_end|>"
    call = {**CALL, "function": {"name": "weather", "arguments": {"city": "Rom"}}}
    with_arguments = replace(AGENTIC, turns=(AGENTIC.turns[0], assistant(None, tool_calls=(call,)), *AGENTIC.turns[2:]))
    with pytest.raises(
        RecordError, match="leaves the arguments of calls out, those of turn 1 first; give one"
    ) as caught:
        said(source, with_arguments)
    assert caught.value.reason == "turn_not_rendered"
    writes = source.replace("c.function.name +", "c.function.name + (c.function.arguments | tojson) +")
    assert said(writes, with_arguments)[0] == '<tool_call>weather{"city": "Rom"}</tool_call><|im_end|>'


def test_calls_of_which_only_the_ids_are_written():
    source = CHATML.replace("m.content", "(m.content or '') + (m.tool_calls[0].id if m.tool_calls else '')")
    assert said(source, AGENTIC)[0] == "functions.weather:0<|im_end|>"


def test_a_history_that_ends_with_another_token_than_what_is_generated_trains_no_end():
    harmony = TemplateTokens(control=("<|start|>", "<|message|>", "<|end|>", "<|return|>"), stop=("<|return|>",))
    source = (
        "{% for m in messages %}{{ '<|start|>' + m.role + '<|message|>' + m.content }}"
        "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    )
    assert said(source, TWO, harmony) == ["<|message|>Hello", "<|message|>Sure<|return|>"]


# Like Kimi K2 Thinking: an empty block, and the answer right behind it.
EMPTY_BLOCK = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{{ '<think>' + (m.reasoning_content or '') + '</think>' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    + PROMPT
)


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        (EMPTY_BLOCK, True),
        (EMPTY_BLOCK.replace("m.content", "(m.content | trim if m.role == 'user' else m.content)"), True),
        (EMPTY_BLOCK.replace("m.content", "m.content | trim"), False),
        (EMPTY_BLOCK.replace("</think>'", "</think>\\n\\n'"), True),
        (EMPTY_BLOCK.replace("'<think>'", "'\\n<think>'"), True),
        (EMPTY_BLOCK.replace("assistant\\n", "assistant\\n<think>"), True),
    ],
)
def test_an_empty_think_block_leaves_the_answer_its_newlines(source, kept):
    answers = ("\n\nHello", "\n Hello", "Hello", "\n\n\nHello")
    turns = (turn for answer in answers for turn in (user(" hi "), assistant(answer)))
    expected = [(answer if kept else answer.strip()) + "<|im_end|>" for answer in answers]
    assert said(source, Conversation(turns=tuple(turns))) == expected


def test_an_empty_think_block_of_the_record_behind_one_of_the_template():
    record = Conversation(turns=(user("Hi"), assistant("<think>\n\n</think>\n\nHello")))
    assert said(EMPTY_BLOCK, record) == ["Hello<|im_end|>"]


def test_keys_whose_value_is_null_are_dropped_as_transformers_does():
    """With `content: null` this template would write the word None; transformers' ids have none."""
    names = "(m.tool_calls or []) | map(attribute='function.name') | join"
    source = CHATML.replace("m.content", f"(m.content if m.content is defined else '') ~ {names}")
    raw = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0})), chat_template=source)
    expected = tokenizer.apply_chat_template(raw, tokenize=False)
    conversation = get("openai").read({"messages": raw}, FieldMap())
    assert ChatTemplate("t", source, TOKENS).render(conversation).text == expected
    assert expected.endswith("assistant\nweather<|im_end|>\n")


@pytest.mark.parametrize("opener", ["<judge>\\n", "Here are my reasoning steps:\\n", "<thought>\\n"])
def test_the_header_is_the_one_that_plain_answers_have_in_the_history(opener):
    source = CHATML.replace(
        "'<|im_start|>assistant\\n' }}{% endif", f"'<|im_start|>assistant\\n{opener}' }}}}{{% endif"
    )
    assert said(source, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]


def test_the_rest_of_an_empty_block_whose_opener_the_prompt_has():
    """As GLM-5.1, whose history has `</think>` alone in earlier turns."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{{ '<think></think>' if loop.last else '</think>' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>' }}{% endif %}"
    )
    assert said(source, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]


def test_a_prompt_that_is_always_there_and_a_word_between_it_and_the_answers():
    """As Command-A's copies: the prompt stands at the end unasked, and answers begin with a token of their own."""
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}{% else %}"
        "{{ '<|assistant|><|response|>' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}{{ '<|assistant|>' }}"
    )
    assert said(source, TWO) == ["<|response|>Hello<|im_end|>", "<|response|>Sure<|im_end|>"]
    assert ChatTemplate("t", source, TOKENS).render(TWO).text.endswith("Sure<|im_end|>")


def test_results_of_tools_behind_which_the_prompt_is_an_opener_alone():
    """As DeepSeek-V3.2: no header behind a result, and the history has the rest of an empty block."""
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content + '<|assistant|>' }}"
        "{% elif m.role == 'tool' %}{{ '[' + m.content + ']\\n\\n' }}{% else %}{{ '</think>' + (m.content or '') }}"
        + CALLS
        + "{{ '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<think></think>' }}{% endif %}"
    )
    steps = (assistant(None, tool_calls=(CALL,)), Turn(role="tool", content="sunny", name="weather"))
    talk = Conversation(turns=(user("Weather?"), *steps, *steps, assistant("Clear")), tools=(TOOL,))
    call = "<tool_call>weather</tool_call><|im_end|>"
    assert said(source, talk) == [call, call, "Clear<|im_end|>"]


def test_newlines_that_the_template_takes_off_the_answer_are_the_block_s():
    source = EMPTY_BLOCK.replace("</think>'", "</think>\\n\\n'").replace("m.content", "m.content.lstrip('\\n')")
    answers = ("\n\nHello", "\n Hello")
    turns = (turn for answer in answers for turn in (user("hi"), assistant(answer)))
    assert said(source, Conversation(turns=tuple(turns))) == ["Hello<|im_end|>", " Hello<|im_end|>"]


def detail(source, conversation, tokens=TOKENS):
    with pytest.raises(RecordError) as caught:
        said(source, conversation, tokens)
    return f"{caught.value.reason}: {caught.value.detail}"


def test_a_text_that_is_left_out_though_its_words_occur_elsewhere():
    source = CHATML.replace("{{ '<|im_start|>' + m.role", "{% if m.role != 'system' %}{{ '<|im_start|>' + m.role")
    source = source.replace("'<|im_end|>\\n' }}{% endfor", "'<|im_end|>\\n' }}{% endif %}{% endfor")
    brief = (Turn(role="system", content="Be brief."), user("Be brief. What is 2+2?"), assistant("4"))
    found = detail(source, Conversation(turns=brief))
    assert found.startswith(
        "turn_not_rendered: the template leaves the text of turn 0 out, a system prompt: put it in "
    )


def test_ids_that_do_not_hold_the_name_of_the_call():
    source = CHATML.replace("m.content", "(m.content or '') + (m.tool_calls[0].id if m.tool_calls else '')")
    call = {**CALL, "id": "call00000"}
    turns = (user("Hi"), assistant(None, tool_calls=(call,)))
    found = detail(source, Conversation(turns=turns, tools=(TOOL,)))
    assert "it writes their ids alone, which must hold the names, as functions.weather:0" in found


def test_parallel_calls_of_which_the_template_writes_one():
    first = "{% if m.tool_calls %}{{ '<tool_call>' + m.tool_calls[0].function.name + '</tool_call>' }}{% endif %}"
    source = CHATML.replace("m.content + '<|im_end|>\\n' }}", "(m.content or '') }}" + first + "{{ '<|im_end|>\\n' }}")
    other = {"type": "function", "function": {"name": "other", "arguments": {}}}
    parallel = Conversation(turns=(user("Hi"), assistant(None, tool_calls=(CALL, other))), tools=(TOOL,))
    assert "it writes 1 of 2; give each call a turn of its own" in detail(source, parallel)


def test_arguments_that_are_no_json_and_that_the_template_leaves_out():
    pythonic = (
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% for k in c.function.arguments if k is mapping %}"
    )
    source = CHATML.replace(
        "m.content + '<|im_end|>\\n' }}",
        "(m.content or '') }}" + pythonic + "{% endfor %}{% endfor %}{{ '<|im_end|>\\n' }}",
    )
    code = {"type": "function", "function": {"name": "python", "arguments": "print(1)"}}
    talk = Conversation(turns=(user("Hi"), assistant(None, tool_calls=(code,))), tools=(TOOL,))
    assert "leaves the arguments of a call of turn 1 out, which are no object" in detail(source, talk)
    asked = Conversation(turns=(user("What does print(1) do?"), *talk.turns[1:]), tools=(TOOL,))
    assert why(source, asked) == "turn_not_rendered"  # though the question has these words
    for arguments in (["a"], 3, True):
        call = {"type": "function", "function": {"name": "python", "arguments": arguments}}
        other = Conversation(turns=(user('Is 3 ["a"] True?'), assistant(None, tool_calls=(call, call))), tools=(TOOL,))
        assert why(source, other) == "turn_not_rendered"
        shown = source.replace("for k in c.function.arguments if k is mapping", "for k in ()")
        shown = shown.replace("c.function.name }}", "(c.function.arguments | tojson) + c.function.name }}")
        assert said(shown, other) == [(json.dumps(arguments) + "python") * 2 + "<|im_end|>"]
    assert said(source.replace("c.function.name }}", "c.function.name + c.function.arguments }}"), talk) == [
        "pythonprint(1)<|im_end|>"
    ]


def test_a_turn_that_is_all_reasoning_ends_with_the_stop_token_behind_its_markup():
    harmony = TemplateTokens(
        control=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"), stop=("<|return|>",)
    )
    source = (
        "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role == 'assistant' %}{% if m.reasoning_content %}"
        "{{ '<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|><|start|>assistant' }}{% endif %}"
        "{{ '<|channel|>final<|message|>' + (m.content or '') + '<|return|>' }}"
        "{% else %}{{ '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    )
    talk = Conversation(turns=(user("Hi"), assistant(None, reasoning="Hm")))
    end = "<|end|><|start|>assistant<|channel|>final<|message|><|return|>"
    assert said(source, talk, harmony) == ["<|channel|>analysis<|message|>Hm" + end]


def test_a_name_that_stands_twice_in_its_call():
    source = CHATML.replace(
        "m.content + ",
        "(m.content or '') }}{% for c in m.tool_calls or [] %}"
        "{{ ' to=' + c.function.name + '<call ' + c.function.name + '>' }}{% endfor %}{{ ",
    )
    assert said(source, AGENTIC)[0] == " to=weather<call weather><|im_end|>"


def test_a_turn_begins_where_its_own_prompt_ends_though_the_header_stands_behind_it():
    """DeepSeek V3: behind a result the prompt ends without a header, and history writes one before the next call."""
    source = (
        "{% for m in messages %}{% if m.tool_calls %}"
        "{{ '<|im_start|>assistant\\n!' + m.tool_calls[0].function.name + '<|im_end|>' }}"
        "{% elif m.role == 'assistant' %}"
        "{{ ('' if messages[loop.index0 - 1].role == 'tool' else '<|im_start|>assistant\\n') + m.content + '<|im_end|>' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role != 'tool' %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    step = (assistant(None, tool_calls=(CALL,)), Turn(role="tool", content="sunny", name="weather"))
    talk = Conversation(turns=(user("Weather?"), *step, *step, assistant("It is clear.")), tools=(TOOL,))
    assert ChatTemplate("t", source, TOKENS).locator.distrusted
    assert said(source, talk) == [
        "!weather<|im_end|>",
        "<|im_start|>assistant\n!weather<|im_end|>",
        "It is clear.<|im_end|>",
    ]


TWO_ANSWERS = Conversation(turns=(user("Hi"), assistant("Hello"), assistant("Again")))


def test_behind_an_answer_a_second_one_begins_where_inference_would():
    """GigaChat 3.1 writes no generation prompt behind an answer, so that the model has to generate the header."""
    asks = "{% if add_generation_prompt and messages[-1].role != 'assistant' %}"
    source = CHATML.replace("{% if add_generation_prompt %}", asks)
    assert source != CHATML
    assert said(source, TWO_ANSWERS) == ["Hello<|im_end|>", "<|im_start|>assistant\nAgain<|im_end|>"]
    assert said(CHATML, TWO_ANSWERS) == ["Hello<|im_end|>", "Again<|im_end|>"]


def test_behind_a_system_prompt_alone_a_turn_begins_where_inference_would():
    # As Granite's 3.3: the prompt stands behind the last message of the loop, which the system prompt is not in.
    inside = CHATML.replace("{% endfor %}{% if add", "{% if loop.last and add") + "{% endfor %}"
    first = (
        "{% set first = 1 if messages[0].role == 'system' else 0 %}{{ messages[0].content + '\\n' if first else '' }}"
    )
    source = first + inside.replace("in messages", "in messages[first:]")
    turns = (Turn(role="system", content="Speak"), assistant("Hello"), *TWO.turns[2:])
    assert said(source, Conversation(turns=turns)) == ["<|im_start|>assistant\nHello<|im_end|>", "Sure<|im_end|>"]
    spaced = source.replace("{% if loop.last and add", "{{ '\t' }}{% if loop.last and add").replace(
        "'\\n' if first", "'\\n\\t' + ('' if messages[1:] else '\\t') if first"
    )
    padded = Conversation(turns=(turns[0], assistant("\n Hello"), *turns[2:]))
    assert said(spaced, padded) == ["<|im_start|>assistant\n\n Hello<|im_end|>", "Sure<|im_end|>"]


def test_a_second_answer_that_would_begin_inside_of_the_first_is_refused():
    """Where the last answer is not closed, inference goes on with it."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{% if not loop.last %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role != 'assistant' %}{{ '<|im_end|>\n<|im_start|>assistant\n' }}"
        "{% endif %}"
    )
    assert why(source, TWO_ANSWERS) == "turn_differs"


def test_a_header_with_other_white_space_in_front_of_it_than_the_prompt_s():
    """vLLM's Llama 4 template for JSON ends its prompts with a newline that history does not have."""
    source = CHATML.replace("<|im_end|>\\n", "<|im_end|>").replace(
        "{{ '<|im_start|>assistant", "{{ '\\n<|im_start|>assistant"
    )
    assert said(source, TWO) == ["Hello<|im_end|>", "Sure<|im_end|>"]


def test_an_answer_that_ends_as_no_model_ends_it_is_refused_with_a_remedy():
    """A copy of gpt-oss's template that writes `<|end|>` behind the last answer too, where the model stops on another."""
    source = CHATML.replace("<|im_end|>\\n", "<|end|>")
    tokens = TemplateTokens(control=("<|im_start|>", "<|end|>", "<|return|>"), stop=("<|return|>",))
    with pytest.raises(UsageError, match=r"'<\|end\|>' follows answers: if the model stops on it, list it"):
        said(source, TWO, tokens)
    assert said(source, TWO, replace(tokens, stop=("<|end|>",))) == ["Hello<|end|>", "Sure<|end|>"]


def test_a_header_that_an_empty_message_of_the_turn_repeats():
    """gpt-oss writes an analysis message without text where a record has empty reasoning; inference generates it."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role }}{% if m.reasoning_content is defined %}"
        "{{ '!analysis' + m.reasoning_content + '<|end|><|im_start|>assistant' }}{% endif %}"
        "{{ '!final' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
    )
    tokens = TemplateTokens(control=("<|im_start|>", "<|im_end|>", "<|end|>"), stop=("<|im_end|>",))
    talk = Conversation(turns=(user("Hi"), assistant("Hello", reasoning="")))
    assert said(source, talk, tokens) == ["!analysis<|end|><|im_start|>assistant!finalHello<|im_end|>"]
