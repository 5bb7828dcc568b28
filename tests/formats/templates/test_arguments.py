"""Templates with arguments and documents: the text is what transformers renders, the turns what it generates."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_texts import ARGUED, CHATML, TOKENS
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import ChatTemplate, Tracer, TrainOn, message_renderer
from sft_shards.formats.templates import chat_template as module

pytestmark = pytest.mark.unit

TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}
TEXT = st.text(st.sampled_from("ab é\n"), min_size=1, max_size=6).filter(str.strip)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "enable_thinking": st.booleans(),
        "reasoning_effort": st.sampled_from(["low", "high", 3, [1, "x"], "<|im_end|>"]),
        "unused": st.integers(),
    },
)
DOCUMENTS = st.lists(st.fixed_dictionaries({"title": TEXT, "text": TEXT | st.just("say <|im_end|>")}), max_size=2)
CONVERSATION = st.builds(
    lambda texts, documents, arguments, tools: Conversation(
        turns=tuple(Turn(role=("user", "assistant")[at % 2], content=text) for at, text in enumerate(texts)),
        documents=tuple(documents),
        template_arguments=arguments,
        tools=tools,
    ),
    st.lists(TEXT, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0),
    DOCUMENTS,
    ARGUMENTS,
    st.sampled_from([(), (TOOL,)]),
)


def oracle(conversation, source=ARGUED, *, turns=None, given=None):
    """What transformers renders, up to a turn with the generation prompt."""
    arguments = {"documents": list(conversation.documents) or None, **(given or {}), **conversation.template_arguments}
    messages = conversation.messages()
    texts, _ = render_jinja_template(
        [messages if turns is None else messages[:turns]],
        chat_template=source,
        tools=list(conversation.tools) or None,
        add_generation_prompt=turns is not None,
        **TOKENS.variables | arguments,
    )
    return texts[0]


@settings(max_examples=30)
@given(conversation=CONVERSATION, job=ARGUMENTS.map(lambda one: {k: v for k, v in one.items() if k != "unused"}))
def test_the_text_is_that_of_transformers_and_the_record_comes_before_the_job(conversation, job):
    template = ChatTemplate("t", ARGUED, TOKENS, arguments=job)
    rendering = template.render(conversation)
    whole = oracle(conversation, given=job)
    assert rendering.text == whole
    for spoken in rendering.spoken:
        prompt = oracle(conversation, turns=spoken.turn, given=job)
        assert template.prompt(conversation, spoken.turn) == prompt
        if whole.startswith(prompt):
            assert spoken.start == len(prompt)
        assert rendering.text[: spoken.end].endswith("<|im_end|>")
    typed = [rendering.text[start:end] for start, end in rendering.typed]
    arguments = {"reasoning_effort": "", **job, **conversation.template_arguments}
    expected = [*(d["text"] for d in conversation.documents), arguments["reasoning_effort"]]
    assert len(typed) == sum("<|im_end|>" in str(text) for text in expected), "what is typed stays text"


def talk(**more):
    turns = (Turn(role="user", content="Hi"), Turn(role="assistant", content="Hello"))
    return Conversation(turns=turns, **more)


def test_arguments_of_a_record_act_as_those_of_the_job():
    for arguments in ({"enable_thinking": False}, {"reasoning_effort": "high", "enable_thinking": True}):
        by_job = ChatTemplate("t", ARGUED, TOKENS, arguments=arguments)
        by_record = ChatTemplate("t", ARGUED, TOKENS)
        assert by_job.render(talk()) == by_record.render(talk(template_arguments=arguments))
        assert by_job.header == by_record.suited(talk(template_arguments=arguments)).header
    assert by_record.header == "<|im_start|>assistant\n", "others leave the template as it is"


def test_arguments_that_repeat_are_compiled_once(monkeypatch):
    compiled, probed = [], []
    real = message_renderer.compile_template
    monkeypatch.setattr(message_renderer, "compile_template", lambda source: compiled.append(source) or real(source))
    learn = module.learn
    monkeypatch.setattr(module, "learn", lambda *words, **more: probed.append(words) or learn(*words, **more))
    template = ChatTemplate("t", ARGUED, TOKENS)
    for number in range(20):
        template.render(talk(template_arguments={"enable_thinking": bool(number % 2), "unused": number}))
    assert (len(compiled), len(probed)) == (1, 3)
    monkeypatch.setattr(module, "MOST_VARIANTS", 4)
    for number in range(9):
        template.render(talk(template_arguments={"reasoning_effort": number}))
        assert len(template._variants) <= 4


def test_one_and_true_are_two_arguments():
    template = ChatTemplate("t", ARGUED, TOKENS)
    texts = [template.render(talk(template_arguments={"reasoning_effort": value})).text for value in (1, True, 1.0)]
    assert len(set(texts)) == 3


def test_a_name_that_no_template_uses():
    with pytest.raises(UsageError, match=r"--template-arg enable_thinkin: template t does not use it; did you mean "
                       r"'enable_thinking'\? \(it takes: enable_thinking, reasoning_effort\)"):  # fmt: skip
        ChatTemplate("t", ARGUED, TOKENS, arguments={"enable_thinkin": False})
    with pytest.raises(UsageError, match=r"template t does not use it \(it takes: none\)"):
        ChatTemplate("t", CHATML, TOKENS, arguments={"enable_thinking": False})
    both = ChatTemplate("t", CHATML, TOKENS, with_tools=ARGUED, arguments={"reasoning_effort": "high"})
    assert "Effort" not in both.render(talk()).text
    assert "Effort: high" in both.render(talk(tools=(TOOL,))).text
    assert both.takes == {"enable_thinking", "reasoning_effort"}


def test_an_argument_that_the_template_refuses():
    source = "{% if mood == 'bad' %}{{ raise_exception('no ' ~ mood) }}{% endif %}" + CHATML
    with pytest.raises(UsageError, match=r"cannot render one question and its answer .*no bad"):
        ChatTemplate("t", source, TOKENS, arguments={"mood": "bad"})
    template = ChatTemplate("t", source, TOKENS)
    for _ in range(2):
        with pytest.raises(RecordError, match=r'template_error: with the arguments {"mood":"bad"}: .*no bad'):
            template.render(talk(template_arguments={"mood": "bad"}))
    assert template.render(talk(template_arguments={"mood": "good"})) == template.render(talk())


def test_documents_that_no_template_shows_are_counted():
    documents = ({"title": "A", "text": "B"},)
    assert ChatTemplate("t", CHATML, TOKENS).render(talk(documents=documents)).notes == ("documents_ignored",)
    assert ChatTemplate("t", ARGUED, TOKENS).render(talk(documents=documents)).notes == ()


def test_a_skeleton_is_that_of_the_arguments():
    template = ChatTemplate("t", ARGUED, TOKENS, arguments={"enable_thinking": False})
    conversation = Conversation.from_text_only(("user", "assistant"), ["x0", "x1"])
    rendering = template.render(conversation)
    spans = TrainOn().spans(rendering, conversation)
    skeleton = Tracer(template).trace(("user", "assistant"), ["x0", "x1"], rendering, spans)
    assert "<think>\n\n</think>\n\n" in skeleton.literals[1]
    other = ChatTemplate("t", ARGUED, TOKENS)
    assert Tracer(other).trace(("user", "assistant"), ["x0", "x1"], rendering, spans) is None


def test_turns_alone_make_a_digest_and_only_bare_ones_are_text_only():
    bare = talk()
    for more in ({"template_arguments": {"enable_thinking": False}}, {"documents": ({"text": "x"},)}):
        assert talk(**more).digest() == bare.digest()
        assert talk(**more).text_only() is None
        assert replace(talk(**more), documents=(), template_arguments={}) == bare
    with pytest.raises(RecordError, match="lone_surrogate"):
        talk(template_arguments={"x": "\ud800"})
    with pytest.raises(RecordError, match="lone_surrogate"):
        talk(documents=({"text": "\ud800"},))
    assert copy.deepcopy(bare) == bare
