"""Templates that rewrite history in each way that published ones do, and what inference meets, by transformers."""

from typing import Any

from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from sft_shards.formats.conversation import Conversation, Turn
from sft_shards.formats.templates import TemplateTokens

STOPS = ("<|im_end|>", "<|return|>")
CONTROL = (*STOPS, "<|im_start|>", "<|end|>")
TOKENS = TemplateTokens(variables={"bos_token": "", "eos_token": "<|im_end|>"}, control=CONTROL, stop=STOPS)
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks.", "parameters": {}}}


def template(think: str, *, end: str = "<|im_end|>", tools: str = "loop.first", prompt: str = "") -> str:
    """A template in the style of ChatML.

    Args:
        think: Jinja that writes what stands before an answer. It knows `reasoning`, `last` (the message is the last
            one) and `run` (no user's message follows).
        end: Jinja expression or text that ends an assistant's turn.
        tools: condition under which the tools stand in front of a message.
        prompt: what the generation prompt has behind the header.
    """
    return f"""
{{%- set ns = namespace(asked=-1) %}}
{{%- for m in messages %}}{{%- if m.role == 'user' %}}{{%- set ns.asked = loop.index0 %}}{{%- endif %}}{{%- endfor %}}
{{%- for m in messages %}}
    {{%- if tools and ({tools}) %}}{{{{- '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}}}{{%- endif %}}
    {{{{- '<|im_start|>' + m.role + '\\n' }}}}
    {{%- if m.role == 'assistant' %}}
        {{%- set last = loop.last %}}{{%- set run = loop.index0 > ns.asked %}}
        {{%- set content = m.content or '' %}}{{%- set reasoning = m.reasoning_content or '' %}}
        {{%- if not reasoning and '</think>' in content %}}
            {{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}}
            {{%- set content = content.split('</think>')[-1].lstrip('\\n') %}}
        {{%- endif %}}
        {think}
        {{{{- content }}}}
        {{%- for call in m.tool_calls or [] %}}
            {{{{- '<tool_call>' + call.function.name + (call.function.arguments | tojson) + '</tool_call>' }}}}
        {{%- endfor %}}
        {{{{- {end!r} if true else '' }}}}
    {{%- else %}}
        {{{{- m.content + '<|im_end|>' }}}}
    {{%- endif %}}
    {{{{- '\\n' }}}}
{{%- endfor %}}
{{%- if add_generation_prompt %}}{{{{- '<|im_start|>assistant\\n{prompt}' }}}}{{%- endif %}}
"""


def block(condition: str) -> str:
    return "{%- if " + condition + " %}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}{%- endif %}"


REWRITES = {
    "keeps everything": template(block("reasoning")),
    "never shows reasoning": template(""),
    "drops reasoning before the last question": template(block("run and reasoning")),
    "empty block in the last turn": template(block("last or reasoning")),
    "as Qwen3": template(block("run and (last or reasoning)")),
    "prompt opens the block": template(block("run and (last or reasoning)"), prompt="<think>\\n"),
    "another end in the last turn": template(block("reasoning"))
    .replace("'<|im_end|>' if true", "'<|return|>' if last")
    .replace("if last else ''", "if last else '<|im_end|>'"),
    "tools before the last question": template(block("reasoning"), tools="loop.index0 == ns.asked"),
}
"""By what they do."""


def kwargs(conversation: Conversation) -> dict[str, Any]:
    return {"tools": list(conversation.tools) or None, **TOKENS.variables}


def fed(source: str, conversation: Conversation, number: int) -> str:
    """What inference feeds before a turn."""
    found, _ = render_jinja_template(
        [conversation.messages()[:number]], chat_template=source, add_generation_prompt=True, **kwargs(conversation)
    )
    return str(found[0])


def written(source: str, conversation: Conversation, number: int | None = None) -> str:
    """The rendering that a turn is the last of; of the whole conversation without a number."""
    messages = conversation.messages()[: None if number is None else number + 1]
    found, _ = render_jinja_template([messages], chat_template=source, **kwargs(conversation))
    return str(found[0])


def generated(source: str, conversation: Conversation, number: int) -> tuple[str, str]:
    """What inference feeds before a turn, and what it generates, an empty think block being fed."""
    prompt, text = fed(source, conversation, number), written(source, conversation, number)
    assert text.startswith(prompt)
    ends = [place + len(stop) for stop in STOPS if (place := text.find(stop, len(prompt))) >= 0]
    answer = text[len(prompt) : min(ends)]
    for empty in ("<think>\n\n</think>\n\n", "\n</think>\n\n"):
        if answer.startswith(empty) and (empty.startswith("<") or prompt.endswith("<think>\n")):
            return prompt + empty, answer.removeprefix(empty)
    return prompt, answer


def is_rewritten(source: str, conversation: Conversation, number: int) -> bool:
    """Whether the whole rendering does not go on behind what is fed as inference does."""
    return not written(source, conversation).startswith("".join(generated(source, conversation, number)))


def speakers(conversation: Conversation) -> list[int]:
    return [number for number, turn in enumerate(conversation.turns) if turn.role == "assistant"]


@st.composite
def conversations(draw: st.DrawFn, tools: bool = True, reasoning: bool = True) -> Conversation:
    """Rounds of a question and an answer, with reasoning beside or inside, and with steps that call tools.

    The words of each turn occur nowhere else, so that it is seen what a template writes.
    """
    turns: list[Turn] = []
    words = iter(f"w{number}." for number in range(1000))

    def thought() -> tuple[str | None, str]:
        form = draw(st.sampled_from(["none", "beside", "inside"])) if reasoning else "none"
        inside = f"<think>\nr{next(words)}\n</think>\n\n" if form == "inside" else ""
        return (f"r{next(words)}" if form == "beside" else None), inside

    if draw(st.booleans()):
        turns.append(Turn(role="system", content=next(words)))
    for _ in range(draw(st.integers(1, 4))):
        turns.append(Turn(role="user", content=next(words)))
        for _ in range(draw(st.integers(0, 2)) if tools else 0):
            beside, inside = thought()
            content = inside + draw(st.sampled_from([next(words), ""])) or None
            call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": next(words)}}}
            turns.append(Turn(role="assistant", content=content, reasoning=beside, tool_calls=(call,)))
            turns.append(Turn(role="tool", content=next(words)))
        beside, inside = thought()
        turns.append(Turn(role="assistant", content=inside + next(words), reasoning=beside))
    if draw(st.integers(0, 4)) == 0:
        turns.append(Turn(role="user", content=next(words)))
    offered = any(turn.tool_calls for turn in turns) or (tools and draw(st.booleans()))
    return Conversation(turns=tuple(turns), tools=(TOOL,) if offered else ())
