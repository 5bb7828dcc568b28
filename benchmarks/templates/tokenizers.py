"""A small tokenizer with the control tokens that a template writes, and the stop tokens of its family."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from transformers import AddedToken, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

CONTROL = re.compile(
    r"<\|[^|<>'\"\s]{1,40}\|>|<｜[^｜<>'\"]{1,40}｜>|<\|?(?:start_of_turn|end_of_turn|turn|channel|tool_call)\|?>|<turn\|>"
    r"|<channel\|>|<(?:eos|bos)>|</?s>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|THINK)\]"
    r"|\[(?:TOOL_CALLS|ARGS|CALL_ID|TOOL_CONTENT)\]|<(?:begin|end)_of_\w+>|\]~!?b\]|\[e~\[|</?seed:(?:bos|eos)>"
    r"|<SPECIAL_\d+>|<(?:start|end)_function_\w+>|<\|tool_(?:response|call)>|<tool_(?:response|call)\|>"
)
TAGS = re.compile(r"</?(?:(?:seed|minimax|ifm):)?(?:think|tool_call|tool_response|arg_key|arg_value)>")
"""What structures a turn from within: added tokens that are not special, and that the assistant writes itself."""
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the tokenizers of a family of models have in common.

    Attributes:
        word: matches the names of its templates.
        name: as a table names it.
        stops: the tokens that its models stop on.
        sentencepiece: whether its vocabulary is SentencePiece's, with bytes for what it does not know.
        plain: matches the control tokens that are added and not special.
        ids_alone: whether its templates write the id of a call and not the name, which the id holds.
    """

    word: str
    name: str
    stops: tuple[str, ...]
    sentencepiece: bool = False
    plain: str = "$^"
    ids_alone: bool = False


DEEPSEEK = Family(
    word="deepseek|r1-|-r1|r1_",
    name="DeepSeek",
    stops=("<｜end▁of▁sentence｜>",),
    plain="<｜(?!begin▁of|end▁of▁sentence)",
)
IM_END = ("<|im_end|>",)
FAMILIES = (
    Family(word="apertus", name="Apertus", stops=("<|assistant_end|>",)),
    Family(word="apriel", name="Apriel", stops=("<|end|>",)),
    Family(word="gigachat", name="GigaChat", stops=("<|message_sep|>",)),
    Family(word="muse", name="Muse", stops=("<|eot|>", "<|eom|>")),
    Family(word="gpt-?oss", name="gpt-oss", stops=("<|return|>", "<|call|>")),
    Family(word="r1-distill-llama|r1-distill-qwen", name="R1-Distill", stops=DEEPSEEK.stops, plain=DEEPSEEK.plain),
    Family(word="deepseek-r1|deepseekr1", name="DeepSeek R1", stops=DEEPSEEK.stops, plain=DEEPSEEK.plain),
    Family(
        word=r"deepseek-?(?:ai-deepseek-)?v?3\.?1", name="DeepSeek V3.1", stops=DEEPSEEK.stops, plain=DEEPSEEK.plain
    ),
    Family(
        word=r"deepseek-?(?:ai-deepseek-)?v?3\.?2", name="DeepSeek V3.2", stops=DEEPSEEK.stops, plain=DEEPSEEK.plain
    ),
    Family(word="deepseek-?v4", name="DeepSeek V4", stops=DEEPSEEK.stops, plain=DEEPSEEK.plain),
    DEEPSEEK,
    Family(word="glm|codegeex4", name="GLM", stops=("<|user|>", "<|observation|>")),
    Family(
        word="kimi-?k2-thinking|kimi-?k2[._]5", name="Kimi K2-Thinking", stops=IM_END, plain=r"<\|tool_", ids_alone=True
    ),
    Family(word="kimi-k3", name="Kimi K3", stops=("<|end_of_msg|>",)),
    Family(word="kimi|moonlight", name="Kimi K2", stops=IM_END, plain=r"<\|tool_"),
    Family(word="minimax", name="MiniMax", stops=("[e~[",)),
    Family(word="nemotron-?_?(?:3|h)|nano3|lightning", name="Nemotron 3", stops=IM_END),
    Family(word="nemotron", name="Nemotron Nano v2", stops=("<SPECIAL_12>",)),
    Family(word="qwq", name="QwQ", stops=IM_END),
    Family(word="qwen3?[._]?3?[._]?5(?!-?instruct)(?<!2[._]5)(?<!25)", name="Qwen3.5", stops=IM_END),
    Family(word="qwen3[._]6", name="Qwen3.6", stops=IM_END),
    Family(word="qwen3", name="Qwen3", stops=IM_END),
    Family(word="qwen_?2?[._]?5", name="Qwen2.5", stops=IM_END),
    Family(word="qwen", name="Qwen, other", stops=IM_END),
    Family(word="hermes", name="Hermes", stops=IM_END),
    Family(word="smollm", name="SmolLM3", stops=IM_END),
    Family(word="llama[-_]?4", name="Llama 4", stops=("<|eot|>", "<|eom|>")),
    Family(word=r"llama[-_]?3|llama31|toolace", name="Llama 3", stops=("<|eot_id|>", "<|eom_id|>")),
    Family(word="llama[-_]?2|vicuna|llama_template", name="Llama 2", stops=("</s>",), sentencepiece=True),
    Family(word="phi[-_]?4-reason|phi[-_]?4(?!.?mini)", name="Phi-4-reasoning", stops=IM_END),
    Family(word="phi[-_]?3", name="Phi-3", stops=("<|end|>",), sentencepiece=True),
    Family(word="phi", name="Phi", stops=("<|end|>", "<|im_end|>")),
    Family(word="granite-?_?4|granite-4", name="Granite 4", stops=("<|end_of_text|>",)),
    Family(word="granite", name="Granite 3", stops=("<|end_of_text|>",)),
    Family(word="command-?_?a", name="Command-A", stops=("<|END_OF_TURN_TOKEN|>",)),
    Family(word="command|cohere|aya", name="Cohere", stops=("<|END_OF_TURN_TOKEN|>",)),
    Family(word="seed", name="Seed-OSS", stops=("<seed:eos>",)),
    Family(
        word="gemma-?_?4|diffusion_gemma", name="Gemma 4", stops=("<turn|>", "<|tool_response>"), sentencepiece=True
    ),
    Family(word="gemma", name="Gemma", stops=("<end_of_turn>",), sentencepiece=True),
    Family(word="hunyuan|hy3|hy-", name="Hunyuan", stops=("<|eos|>", "<|hy_place▁holder▁no▁2|>", "<|hy_eos|>")),
    Family(word="ministral|devstral|nemo|small|tekken", name="Mistral, Tekken", stops=("</s>",)),
    Family(word="mistral|mixtral|magistral", name="Mistral", stops=("</s>",), sentencepiece=True),
)
COMPOSED = re.compile(r"eos_token|<\|\{\{|'<\|' ?\+")
"""What a template may write a stop token with, that does not stand in it."""
BEHIND = re.compile(r"\s*(<[^<>\s]{1,40}>|\[[^\[\]\s]{1,40}\])")
"""What may be the stop token behind an answer."""
PLAIN = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Beside a template for tools, what conversations without tools are rendered with."""


def family_of(name: str, source: str) -> Family:
    """Return the family of a template by its name; of another one the stop token that it writes."""
    for family in FAMILIES:
        if re.search(family.word, name, re.IGNORECASE):
            if COMPOSED.search(source) or any(stop in source for stop in family.stops):
                return family
            break
    return Family(word="", name="other", stops=(_written_stop(source) or "</s>",))


def _written_stop(source: str) -> str | None:
    """Return the control token that a template writes behind an answer."""
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "World"}]
    try:
        compiled = _compile_jinja_template(source)
        text = compiled.render(messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=False)
    except Exception:  # whatever a template raises
        return None
    found = BEHIND.match(text.rpartition("World")[2])
    return found[1] if found else None


def make_tokenizer(base: Path, source: str, family: Family, folder: Path, *, for_tools: bool = False) -> None:
    """Write a tokenizer folder: the vocabulary of `base`, a template, and the control tokens that it writes.

    Args:
        for_tools: whether it is a tokenizer's second template, for conversations with tools.
    """
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
    controls = sorted(
        {*CONTROL.findall(source + PLAIN * for_tools), *family.stops, "<s>", END_OF_TEXT} - set(TAGS.findall(source))
    )
    special = [one for one in controls if one in family.stops or not re.match(family.plain, one)]
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(one, special=True) for one in special]})
    plain = [*(one for one in controls if one not in special), *sorted(set(TAGS.findall(source)))]
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in plain])
    tokenizer.bos_token = next((one for one in special if re.search("begin.of|bos", one)), "<s>")
    tokenizer.eos_token = family.stops[0]
    tokenizer.chat_template = {"default": PLAIN, "tool_use": source} if for_tools else source
    tokenizer.save_pretrained(folder)
    ids = [tokenizer.convert_tokens_to_ids(stop) for stop in (*family.stops, END_OF_TEXT)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
