"""A small tokenizer with the control tokens that a template writes, and the stop tokens of its family."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transformers import AddedToken, PreTrainedTokenizerFast

CONTROL = re.compile(
    r"<\|[^|<>'\"\s]{1,40}\|>|<｜[^｜<>'\"]{1,40}｜>|<\|?(?:start_of_turn|end_of_turn|turn|channel|tool_call)\|?>|<turn\|>"
    r"|<channel\|>|<(?:eos|bos)>|</?s>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|THINK)\]"
    r"|\[(?:TOOL_CALLS|ARGS|CALL_ID|TOOL_CONTENT)\]|<(?:begin|end)_of_\w+>|\]~!?b\]|\[e~\[|</?seed:(?:bos|eos)>"
)
TAGS = re.compile(r"</?(?:think|tool_call|tool_response|seed:think)>")
FAMILIES = (  # word of the template's file name, family, stop tokens
    ("gpt-?oss", "gpt-oss", ("<|return|>", "<|call|>")),
    ("glm|chatglm", "GLM", ("<|user|>", "<|observation|>", "<|endoftext|>")),
    ("deepseek|r1", "DeepSeek", ("<｜end▁of▁sentence｜>",)),
    ("kimi", "Kimi", ("<|im_end|>",)),
    ("minimax", "MiniMax", ("[e~[",)),
    ("nemotron", "Nemotron", ("<|im_end|>", "<SPECIAL_12>", "<|eot_id|>")),
    ("qwq", "QwQ", ("<|im_end|>",)),
    ("qwen3[._]5", "Qwen3.5", ("<|im_end|>",)),
    ("qwen3[._]6", "Qwen3.6", ("<|im_end|>",)),
    ("qwen3", "Qwen3", ("<|im_end|>",)),
    ("qwen2[._]?5", "Qwen2.5", ("<|im_end|>",)),
    ("hermes", "Hermes", ("<|im_end|>",)),
    ("smollm", "SmolLM3", ("<|im_end|>",)),
    ("llama[-_]?4", "Llama 4", ("<|eot|>",)),
    ("llama[-_]?3", "Llama 3", ("<|eot_id|>", "<|eom_id|>")),
    ("phi", "Phi", ("<|end|>", "<|im_end|>")),
    ("granite", "Granite", ("<|end_of_text|>",)),
    ("command|cohere|aya", "Cohere", ("<|END_OF_TURN_TOKEN|>",)),
    ("seed", "Seed-OSS", ("<seed:eos>",)),
    ("gemma[-_]?4", "Gemma 4", ("<turn|>",)),
    ("gemma", "Gemma", ("<end_of_turn>",)),
    ("mistral|mixtral|ministral|devstral|magistral", "Mistral", ("</s>",)),
)
ANY_STOP = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<｜end▁of▁sentence｜>", "</s>")


def family_of(name: str, source: str) -> tuple[str, tuple[str, ...]]:
    """Return the family of a template, by its file name, and the stop tokens that it can write."""
    for word, family, stops in FAMILIES:
        if re.search(word, name, re.IGNORECASE):
            return family, stops
    written = tuple(stop for stop in ANY_STOP if stop in source)
    return "other", written[:1] or ("</s>",)


def make_tokenizer(base: Path, source: str, stops: tuple[str, ...], folder: Path) -> None:
    """Write a tokenizer folder: `base`'s byte-level vocabulary, a template, and the control tokens that it writes.

    Template words such as `<think>` are added tokens that are not special, as the families have them.
    """
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
    controls = sorted({*CONTROL.findall(source), *stops, "<s>"})
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(one, special=True) for one in controls]})
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in sorted(set(TAGS.findall(source)))])
    tokenizer.bos_token = next((one for one in controls if re.search("begin|bos", one)), "<s>")
    tokenizer.eos_token = stops[0]
    tokenizer.chat_template = source
    tokenizer.save_pretrained(folder)
    ids = [tokenizer.convert_tokens_to_ids(stop) for stop in stops]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
