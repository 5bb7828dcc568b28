"""The texts that a conversation is trained as, and which of its turns carry loss in each.

That is one text, the rendering of the whole conversation, in which the turns that `--train-on` chooses carry loss. What
becomes of those that the template *rewrites* (see `history`) is decided here, by `--rewritten-turns`:

    auto     no loss on a turn whose reasoning the template leaves out because others follow; the others as they stand
    skip     no loss on any rewritten turn
    train    every turn as it stands in the whole rendering
    refuse   no conversation with a rewritten turn
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.history import Renders, Rewriting
from sft_shards.formats.templates.rendering import Rendering, Span, Spoken, TrainOn

LONGEST_HISTORY = 1 << 24
"""Characters of the histories of all turns of a conversation together, up to which each turn is asked for."""


class RewritingTemplate(Renders, Protocol):
    """A chat template of which it is known what it does to earlier turns."""

    @property
    def rewriting(self) -> Rewriting:
        """What it does to earlier turns."""
        ...

    def suited(self, conversation: Conversation) -> RewritingTemplate:
        """Return the template for a conversation, with the arguments that it brings."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedText:
    """One text, and what of it carries loss."""

    rendering: Rendering
    spans: list[Span]
    """Trained spans in characters: in order, not empty, not overlapping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedConversation:
    """A conversation as it is trained."""

    whole: Rendering
    """Of all its turns."""
    texts: tuple[TrainedText, ...]
    notes: tuple[str, ...] = ()
    """What is counted of the conversation, by the names of `NOTES`; a name may stand there several times."""


def train(
    template: RewritingTemplate, conversation: Conversation, policy: TrainOn, *, by_rule: bool = False
) -> TrainedConversation:
    """Render a conversation, and choose what of it carries loss.

    Args:
        by_rule: as `ChatTemplate.render` has it.

    Raises:
        RecordError: the template refuses the conversation, its turns cannot be located for certain, or `turn_rewritten`
            or `history_too_long` (see `--rewritten-turns`).
    """
    template = template.suited(conversation)
    rendering = template.render(conversation, by_rule=by_rule)
    notes = (*rendering.notes, *(("typed_control_tokens",) if rendering.typed else ()))
    chosen = policy.chosen(rendering, conversation)
    changed = _rewritten(template, conversation, rendering, chosen, policy)
    if changed and policy.rewritten == "refuse":
        detail = f"the template writes turn {changed[0].turn} otherwise than inference meets it"
        raise RecordError("turn_rewritten", detail)
    if policy.turns != "everything" and policy.rewritten != "train":
        chosen = [one for one in chosen if one not in changed]
        notes += ("rewritten_turns_without_loss",) * len(changed)
        if changed and not chosen:
            detail = f"the template rewrites every turn that would be trained, turn {changed[0].turn} first"
            raise RecordError("turn_rewritten", detail)
    if policy.rewritten in ("auto", "train") and template.rewriting.changes(conversation):
        notes += ("history_rewritten",)
    text = TrainedText(rendering=rendering, spans=policy.spans(rendering, conversation, chosen))
    return TrainedConversation(whole=rendering, texts=(text,), notes=notes)


def _rewritten(
    template: RewritingTemplate,
    conversation: Conversation,
    rendering: Rendering,
    chosen: Sequence[Spoken],
    policy: TrainOn,
) -> list[Spoken]:
    """Return the chosen turns that are rewritten, as far as `--rewritten-turns` asks for them."""
    if policy.rewritten == "auto":
        dropped = [one for one in chosen if one.reasoning_dropped]
        return [one for one in dropped if template.rewriting.forgets(conversation, one)]
    if not policy.asks_histories or not template.rewriting.rewrites:
        return []
    if sum(one.end for one in chosen) > LONGEST_HISTORY:
        raise RecordError(
            "history_too_long",
            f"{len(chosen)} turns have more than {LONGEST_HISTORY:,} characters before them in sum",
        )
    history = template.history(conversation)
    return [one for one in chosen if not history.keeps(rendering.text, one)]
