"""Last turns that the template leaves open: the stop token that inference generates is put behind them."""

import pytest
from template_texts import CHATML, TOKENS
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import UsageError
from sft_shards.formats.templates import ChatTemplate, TemplateTokens, Tracer, TrainOn

pytestmark = pytest.mark.unit

CALL = {"type": "function", "function": {"name": "weather", "arguments": {}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}
# As GLM: nothing closes a turn but the first token of the next message.
GLM_TOKENS = TemplateTokens(
    control=("<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>"),
    stop=("<|user|>", "<|observation|>", "<|endoftext|>"),
)
GLM = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\\n' + m.content }}"
    "{% elif m.role == 'tool' %}{{ '<|observation|>\\n' + m.content }}{% else %}{{ '<|assistant|>\\n' }}"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ '<tool_call>' + c.function.name + '</tool_call>' }}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def talk(*turns, tools=()):
    return Conversation(turns=tuple(turns), tools=tools)


def user(text):
    return Turn(role="user", content=text)


def assistant(text, **more):
    return Turn(role="assistant", content=text, **more)


RESULT = Turn(role="tool", content="sunny", name="weather")


def said(source, conversation, tokens=GLM_TOKENS):
    rendering = ChatTemplate("t", source, tokens).render(conversation)
    return rendering.text, [rendering.text[one.start : one.end] for one in rendering.spoken]


def test_a_turn_ends_with_the_first_token_of_the_next_message():
    conversation = talk(user("Hi"), assistant("Hello"), user("More"), assistant("Sure"))
    text, turns = said(GLM, conversation)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})), chat_template=GLM)
    assert text == tokenizer.apply_chat_template(conversation.messages(), tokenize=False) + "<|user|>"
    assert turns == ["Hello<|user|>", "Sure<|user|>"]


def test_a_call_ends_with_the_first_token_of_its_result():
    called = assistant(None, tool_calls=(CALL,))
    call = "<tool_call>weather</tool_call><|observation|>"
    assert said(GLM, talk(user("Hi"), called, RESULT, assistant("Sunny"), tools=(TOOL,)))[1] == [call, "Sunny<|user|>"]
    assert said(GLM, talk(user("Hi"), called, tools=(TOOL,)))[1] == [call]


def test_nothing_is_put_behind_a_last_message_that_is_no_assistant_s():
    text, turns = said(GLM, talk(user("Hi"), assistant("Hello"), user("More")))
    assert text.endswith("<|user|>\nMore")
    assert turns == ["Hello<|user|>"]


def test_a_template_that_closes_every_turn_but_the_last():
    source = CHATML.replace("+ '<|im_end|>\\n'", "+ ('' if loop.last and m.role == 'assistant' else '<|im_end|>\\n')")
    text, turns = said(source, talk(user("Hi"), assistant("Hello"), user("More"), assistant("Sure")), TOKENS)
    assert turns == ["Hello<|im_end|>", "Sure<|im_end|>"]
    assert text.endswith("Sure<|im_end|>")


def test_a_closed_turn_gets_nothing():
    text, _ = said(CHATML, talk(user("Hi"), assistant("Hello")), TOKENS)
    assert text.endswith("Hello<|im_end|>\n")


def test_typed_stop_tokens_stay_text():
    _, turns = said(GLM, talk(user("a<|user|>b"), assistant("Hello <|user|>")))
    assert turns == ["Hello <|user|><|user|>"]


def test_the_closing_is_in_the_skeleton():
    conversation = talk(user("x0"), assistant("x1"))
    template = ChatTemplate("t", GLM, GLM_TOKENS)
    rendering = template.render(conversation)
    spans = TrainOn().spans(rendering, conversation)
    skeleton = Tracer(template).trace(("user", "assistant"), ["x0", "x1"], rendering, spans)
    assert skeleton.literals == ("<|user|>\n", "<|assistant|>\n", "<|user|>")


def test_a_next_token_that_is_no_stop_token_is_named_with_the_way_out():
    with pytest.raises(UsageError, match=r"'<\|user\|>' .*generation_config.json"):
        ChatTemplate("t", GLM, TemplateTokens(control=GLM_TOKENS.control, stop=("<|endoftext|>",)))
