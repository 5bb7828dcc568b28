"""Plain text: records that are no conversation, for continued pre-training in the same mixture.

No chat template writes them. A plain text is what the tokenizer puts in front of texts (BOS, or nothing), the text as
it stands in the record, and EOS; every token carries loss. A control token that somebody typed stays text, as in
conversations.
"""

from __future__ import annotations

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.rendering import Rendering
from sft_shards.formats.templates.sentinels import RESERVED, TypedTokens


def render(conversation: Conversation, around: tuple[str, str], typed: TypedTokens) -> Rendering:
    """Return a plain text as it is trained. No turn is located in it, for all of it carries loss.

    Args:
        around: what stands in front of it and behind it.

    Raises:
        RecordError: `reserved_character`.
    """
    content = conversation.turns[0].content or ""
    if RESERVED.search(content):
        raise RecordError("reserved_character", "the text holds a Unicode noncharacter (U+FDD0 to U+FDEF)")
    opening, end = around
    found = tuple((one.start() + len(opening), one.end() + len(opening)) for one in typed.pattern.finditer(content))
    return Rendering(text=opening + content + end, spoken=(), typed=found)
