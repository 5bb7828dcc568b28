"""Conversations to text, with every assistant turn located.

    Conversation ──ChatTemplate.render──▶ Rendering(text, spoken, typed) ──TrainOn.spans──▶ trained spans
                 └─────────────────── train ───────────────────────────────────────▶ TrainedConversation

In a few lines:

    from sft_shards.formats.conversation import Conversation, Turn
    from sft_shards.formats.templates import ChatTemplate, TemplateTokens, TrainOn, template_source
    tokens = TemplateTokens(variables={"bos_token": "", "eos_token": "</s>"}, control=("</s>",), stop=("</s>",))
    template = ChatTemplate("alpaca", template_source("alpaca"), tokens)
    turns = (Turn(role="user", content="Name a colour."), Turn(role="assistant", content="Blue."))
    conversation = Conversation(turns=turns)
    rendering = template.render(conversation)
    print([rendering.text[start:end] for start, end in TrainOn().spans(rendering, conversation)])

A turn is located by what the template says of it (`{% generation %}`) or by markers that are rendered with it; a turn
that cannot be located for certain rejects its record. `train` goes the whole way, and decides about turns that the
template writes otherwise than inference meets them (`history`). `Tracer` makes a `Skeleton` of a template, with which
conversations that are text only are rendered without Jinja.

A package of your own adds a template by the entry point group `sft_shards.templates`.
"""

from sft_shards.formats.templates.chat_template import ChatTemplate
from sft_shards.formats.templates.learning import TemplateTokens
from sft_shards.formats.templates.registry import (
    TOKENIZER,
    is_template_file,
    read_template,
    sources,
    template_source,
)
from sft_shards.formats.templates.rendering import REWRITTEN_TURNS, TRAIN_ON, Rendering, Span, Spoken, TrainOn
from sft_shards.formats.templates.skeleton import Skeleton, Tracer
from sft_shards.formats.templates.traced_text import Change, Trim
from sft_shards.formats.templates.trained_texts import TrainedConversation, TrainedText, train

__all__ = [
    "REWRITTEN_TURNS",
    "TOKENIZER",
    "TRAIN_ON",
    "Change",
    "ChatTemplate",
    "Rendering",
    "Skeleton",
    "Span",
    "Spoken",
    "TemplateTokens",
    "Tracer",
    "TrainOn",
    "TrainedConversation",
    "TrainedText",
    "Trim",
    "is_template_file",
    "read_template",
    "sources",
    "template_source",
    "train",
]
