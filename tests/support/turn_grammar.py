"""Random chat templates of the published kinds, right and wrong, and random conversations for them.

A template is a choice for each thing that published ones differ in. What a choice does to the text is written here; what
has to carry loss under it is not: that is asked of the rule.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

HEADERS = {
    "chatml": ("'<|im_start|>' + {role} + '\\n'", "<|im_end|>"),
    "bars": ("'<|' + {role} + '|>'", "<|end|>"),
    "words": ("{role} + ': '", "</s>"),
}
CONTENTS = (
    "m.content",
    "m.content | trim",
    "m.content.split('</think>')[-1].lstrip('\\n')",
    "m.content.lstrip('\\n')",
    "(m.content if m.role != 'assistant' else m.content.split('</think>')[-1].strip())",
)
REASONING = (
    "",
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}",
    "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content.strip('\\n') }}\n</think>\n\n{% endif %}",
    "{% if m.reasoning_content and loop.index0 > ns.last %}<think>{{ m.reasoning_content }}</think>{% endif %}",
    "{% if loop.index0 > ns.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}",
    "<think>{{ m.reasoning_content or '' }}</think>",
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}",
)
CALLS = (
    "",
    "{% for c in m.tool_calls or [] %}\n<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}",
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }}({{ c.function.arguments | tojson }})]{% endfor %}",
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.id }} {{ c.function.arguments | tojson }}</tool_call>{% endfor %}",
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments }}{% endif %}",
)
PROMPT_ENDS = ("", "<think>\n", "<think>\n\n</think>\n\n", "</think>")
ENDS = (
    "{stop}\n",
    "{stop}",
    "{{% if not loop.last %}}{stop}{{% endif %}}",
    "{{% if loop.last %}}{stop}{{% endif %}}",
    "",
)
BLOCKS = ("none", "right", "without the stop token", "with the header", "without calls", "text alone")
OTHERS = (
    "{header}{{{{ m.content }}}}{stop}\n",
    "{header}{{{{ m.content | trim }}}}{stop}",
    "{{% if m.role != 'system' %}}{header}{{{{ m.content }}}}{stop}\n{{% endif %}}",
    "{{% if m.role == 'tool' %}}<tool_response>{{{{ m.content }}}}</tool_response>{{% else %}}{header}{{{{ m.content }}}}{stop}"
    "{{% endif %}}",
)
LAST_QUESTION = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor -%}"
)
TOOLS = ("", "{% if tools %}{{ tools | tojson }}\n{% endif %}")


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a template and its stop token."""
    kind = draw(st.sampled_from(sorted(HEADERS)))
    header, stop = HEADERS[kind]
    end = draw(st.sampled_from(ENDS)).format(stop=stop)
    block = draw(st.sampled_from(BLOCKS))
    opened = "{{ " + header.format(role="'assistant'") + " }}"
    said = draw(st.sampled_from(REASONING)) + "{{ " + draw(st.sampled_from(CONTENTS)) + " }}"
    calls = draw(st.sampled_from(CALLS))
    start, close = "{% generation %}", "{% endgeneration %}"
    turn = {
        "none": opened + said + calls + end,
        "right": opened + start + said + calls + end + close,
        "without the stop token": opened + start + said + calls + close + end,
        "with the header": start + opened + said + calls + end + close,
        "without calls": opened + start + said + close + calls + end,
        "text alone": opened + start + "{{ m.content }}" + close + calls + end,
    }[block]
    # A call turn may lack what the prompt ends with, as where earlier reasoning is stripped.
    others = draw(st.sampled_from(OTHERS)).format(header="{{ " + header.format(role="m.role") + " }}", stop=stop)
    prompt = opened + draw(st.sampled_from(PROMPT_ENDS))
    asked = "{% if add_generation_prompt %}" + prompt + "{% endif %}" if draw(st.integers(0, 7)) else prompt
    loop = (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        + turn
        + "{% else %}"
        + others
        + "{% endif %}{% endfor %}"
    )
    opening = draw(st.sampled_from(("", "{{ bos_token }}")))
    return opening + LAST_QUESTION + draw(st.sampled_from(TOOLS)) + loop + asked, stop


WORDS = st.text("abcdefgh xyz\n<>{}\"'é字", max_size=12)
SPACES = ("", "", "", "\n", "\n\n", " ")
TYPED = ("<think>", "</think>", "<|im_end|>", "</s>", "<tool_call>")


@st.composite
def texts(draw: st.DrawFn, name: str, typed: bool) -> str:
    """Draw a text that has a word of its own, which no other text of the conversation has."""
    ends = st.sampled_from(SPACES + TYPED if typed else SPACES)
    return draw(ends) + draw(WORDS) + name + draw(WORDS) + draw(ends)


@st.composite
def conversations(draw: st.DrawFn, *, typed: bool = True) -> dict[str, Any]:
    """Draw a record of OpenAI's format, perhaps with control tokens and tags that somebody typed."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts("sysm", typed))})
    with_tools = draw(st.booleans())
    for number in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(texts(f"ques{number}ti", typed))})
        if with_tools:
            for step in range(draw(st.integers(0, 2))):
                messages += draw(steps(f"{number}s{step}", typed))
        messages.append(answer(draw, f"answ{number}er", typed))
    record: dict[str, Any] = {"messages": messages}
    if with_tools:
        schema = {"type": "object", "properties": {"where": {"type": "string"}}}
        record["tools"] = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
    return record


def answer(draw: st.DrawFn, name: str, typed: bool) -> dict[str, Any]:
    """Draw an answer, perhaps with reasoning."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(texts(name, typed))}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(texts(f"why{name}", typed))
    return message


@st.composite
def steps(draw: st.DrawFn, name: str, typed: bool) -> list[dict[str, Any]]:
    """Draw a turn that calls, and what the tools answer."""
    message = answer(draw, f"call{name}ed", typed)
    message["content"] = draw(st.sampled_from((None, "", message["content"])))
    numbers = range(draw(st.integers(1, 2)))
    message["tool_calls"] = [
        {
            "id": f"call{name}x{number}",
            "type": "function",
            "function": {"name": "look_up", "arguments": {"where": draw(texts(f"arg{number}u{name}", typed))}},
        }
        for number in numbers
    ]
    results = [
        {"role": "tool", "tool_call_id": f"call{name}x{number}", "content": draw(texts(f"res{number}u{name}", typed))}
        for number in numbers
    ]
    return [message, *results]
