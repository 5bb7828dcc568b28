"""Chat templates of every way that published ones have, and the tokens that they are rendered with."""

from sft_shards.formats.templates import TemplateTokens

STOPS = ("<|im_end|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<|end|>", "<｜end▁of▁sentence｜>")
CONTROL = (
    *STOPS,
    "<s>",
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "<|user|>",
    "<|system|>",
    "<|assistant|>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
TOKENS = TemplateTokens(variables={"bos_token": "<s>", "eos_token": "</s>"}, control=CONTROL, stop=STOPS)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TRIMS = CHATML.replace("m.content", "m.content | trim")
# Like Qwen3's: a think block for the turns after the last question only, made up where there is none.
THINKS = """
{%- set ns = namespace(last=messages|length - 1, open=true) %}
{%- for m in messages[::-1] %}
    {%- set i = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and m.role == 'user' and not m.content.startswith('<tool_response>') %}
        {%- set ns.open = false %}{%- set ns.last = i %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- set content = m.content %}
        {%- set reasoning = '' %}
        {%- if m.reasoning_content is string %}
            {%- set reasoning = m.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
# The original Llama 3 template: trims, and ends in a generation header whether asked for it or not.
ALWAYS_HEADER = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' "
    "+ m.content | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ ' [INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
LLAMA2_TRIMS = LLAMA2.replace("m.content", "m.content | trim")
GENERATION = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
)
# Takes arguments: one that changes the generation prompt, as Qwen3's does, one that is printed, and documents.
ARGUED = (
    "{% set think = '' if enable_thinking is not defined or enable_thinking else '<think>\\n\\n</think>\\n\\n' %}"
    "{% if reasoning_effort is defined %}{{ '<|im_start|>system\\nEffort: ' ~ reasoning_effort ~ '<|im_end|>\\n' }}{% endif %}"
    "{% if tools %}{{ '<|im_start|>system\\nTools: ' ~ tools | map(attribute='function') | map(attribute='name') | join }}"
    "{{ '<|im_end|>\\n' }}{% endif %}"
    "{% if documents %}{{ '<|im_start|>system\\n' }}"
    "{% for d in documents %}{{ d.title ~ ': ' ~ d.text ~ '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ think }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' + think }}{% endif %}"
)
