"""The texts that a conversation is trained as, and which of its turns carry loss in each.

That is one text, the rendering of the whole conversation, in which the turns that `--train-on` chooses carry loss. What
becomes of those that the template *rewrites* (see `history`) is decided here, by `--rewritten-turns`:

    auto     no loss on a turn whose reasoning the template leaves out because others follow; the others as they stand
    skip     no loss on any rewritten turn
    unroll   a text for each history that turns have: every turn is trained once, exactly as inference meets it
    train    every turn as it stands in the whole rendering
    refuse   no conversation with a rewritten turn

Unrolled, the text of turn k is the rendering of `messages[:k + 1]`, unless turn k stands just as there in the text of
a later turn or in the whole rendering. Under Qwen3, two questions with answers and reasoning give two texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.history import History, Renders, Rewriting, until
from sft_shards.formats.templates.rendering import Rendering, Span, Spoken, TrainOn
from sft_shards.formats.templates.thinking import is_empty_think

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
    turns: tuple[int, ...]
    """Numbers of the turns that carry loss in it, rising."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedConversation:
    """A conversation as it is trained."""

    whole: Rendering
    """Of all its turns."""
    texts: tuple[TrainedText, ...]
    """One; unrolled, as many as its turns have histories, in the order of their last turns."""
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
    if conversation.is_plain_text:
        rendering = template.render(conversation)
        text = TrainedText(rendering=rendering, spans=[(0, len(rendering.text))], turns=())
        typed = ("typed_control_tokens",) if rendering.typed else ()
        return TrainedConversation(whole=rendering, texts=(text,), notes=typed)
    template = template.suited(conversation)
    rendering = template.render(conversation, by_rule=by_rule)
    notes = (*rendering.notes, *(("typed_control_tokens",) if rendering.typed else ()))
    chosen = policy.chosen(rendering, conversation)
    if policy.rewritten == "unroll" and template.rewriting.rewrites:
        _require_short(chosen)
        texts = _unrolled(template, conversation, rendering, chosen, policy)
        spoken = (one for text in texts for one in text.rendering.spoken if one.turn in text.turns)
        kept = tuple(name for name in notes if name != "reasoning_dropped")
        notes = (*kept, *(["reasoning_dropped"] if any(one.reasoning_dropped for one in spoken) else []))
        return TrainedConversation(whole=rendering, texts=texts, notes=notes)
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
    text = _text(rendering, conversation, chosen, policy)
    return TrainedConversation(whole=rendering, texts=(text,), notes=notes)


def _text(rendering: Rendering, conversation: Conversation, turns: Sequence[Spoken], policy: TrainOn) -> TrainedText:
    spans = policy.spans(rendering, conversation, turns)
    return TrainedText(rendering=rendering, spans=spans, turns=tuple(one.turn for one in turns))


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
        forgotten = [one for one in dropped if template.rewriting.forgets(conversation, one)]
        return [one for one in forgotten if _is_shown(template, conversation, one.turn)]
    if not policy.asks_histories or not template.rewriting.rewrites:
        return []
    _require_short(chosen)
    history = template.history(conversation)
    return [one for one in chosen if not history.keeps(rendering.text, one)]


def _is_shown(template: RewritingTemplate, conversation: Conversation, number: int) -> bool:
    """Return whether a template writes a turn's reasoning where it is the last turn.

    Behind a question that is known (see `Rewriting`), but results of tools that somebody typed are no questions to some
    templates. A turn before any is rendered; if the template refuses that, its reasoning counts as shown, so that the
    turn carries no loss without it.
    """
    before = (turn for turn in conversation.turns[:number] if turn.role == "user")
    if not all((turn.content or "").lstrip().startswith("<") for turn in before):
        return True
    try:
        rendering = template.render(until(conversation, number))
    except RecordError:
        return True
    return not next(one for one in rendering.spoken if one.turn == number).reasoning_dropped


def _require_short(chosen: Sequence[Spoken]) -> None:
    """Reject a conversation whose turns have too long histories to render all of them.

    Raises:
        RecordError: `history_too_long`.
    """
    if sum(one.end for one in chosen) > LONGEST_HISTORY:
        detail = f"{len(chosen)} turns have more than {LONGEST_HISTORY:,} characters before them in sum"
        raise RecordError("history_too_long", detail)


def _unrolled(
    template: RewritingTemplate,
    conversation: Conversation,
    whole: Rendering,
    chosen: Sequence[Spoken],
    policy: TrainOn,
) -> tuple[TrainedText, ...]:
    """Return the texts in which each of the chosen turns is trained once, as inference meets it.

    Raises:
        RecordError: `turn_not_generated`, or as `ChatTemplate.render` for the beginnings of the conversation.
    """
    history = template.history(conversation)
    homes: list[tuple[Rendering, list[Spoken]]] = []
    """Renderings from the last to the first, each with its trained turns from the last to the first."""
    for one in reversed(chosen):
        for rendering, turns in homes:
            own = next((spoken for spoken in rendering.spoken if spoken.turn == one.turn), None)
            if own is not None and history.keeps(rendering.text, own):
                turns.append(own)
                break
        else:
            if history.keeps(whole.text, one):
                homes.append((whole, [one]))
            else:
                rendering = template.render(until(conversation, one.turn))
                homes.append((rendering, [_generated(rendering, history, one.turn)]))
    return tuple(_text(rendering, conversation, turns[::-1], policy) for rendering, turns in reversed(homes))


def _generated(rendering: Rendering, history: History, number: int) -> Spoken:
    """Return the last turn of a rendering, which must begin where inference begins to generate it.

    Raises:
        RecordError: `turn_not_generated`.
    """
    own = next(spoken for spoken in rendering.spoken if spoken.turn == number)
    fed = history.prompt(number)
    behind = rendering.text.startswith(fed)
    if not behind or not (own.start == len(fed) or is_empty_think(rendering.text, len(fed), own.start)):
        detail = f"turn {number} does not stand behind its generation prompt even where it is the last one"
        raise RecordError("turn_not_generated", detail)
    return own
