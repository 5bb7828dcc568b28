"""Conversations to text, with every assistant turn located.

    Conversation ──ChatTemplate.render──▶ Rendering(text, spoken, typed) ──TrainOn.spans──▶ trained spans

In five lines:

    from sft_shards.formats.templates import ChatTemplate, TemplateTokens, TrainOn, template_source
    tokens = TemplateTokens(variables={"bos_token": "", "eos_token": "</s>"}, control=("</s>",), stop=("</s>",))
    template = ChatTemplate("alpaca", template_source("alpaca"), tokens)
    rendering = template.render(conversation)
    print([rendering.text[start:end] for start, end in TrainOn().spans(rendering, conversation)])

A package of your own adds a template by the entry point group `sft_shards.templates`.
"""

from sft_shards.formats.templates.chat_template import ChatTemplate, TemplateTokens
from sft_shards.formats.templates.registry import TOKENIZER, sources, template_source
from sft_shards.formats.templates.rendering import TRAIN_ON, Rendering, Span, Spoken, TrainOn
from sft_shards.formats.templates.skeleton import Skeleton, Tracer
from sft_shards.formats.templates.traced_text import Trim

__all__ = [
    "TOKENIZER",
    "TRAIN_ON",
    "ChatTemplate",
    "Rendering",
    "Skeleton",
    "Span",
    "Spoken",
    "TemplateTokens",
    "Tracer",
    "TrainOn",
    "Trim",
    "sources",
    "template_source",
]
