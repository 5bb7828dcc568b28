"""`formats --try-template`: what would become of records under a template, with one example of each outcome.

    exact       every assistant turn stands behind what inference feeds before it, and carries loss
    rewritten   the template writes an earlier turn otherwise than inference meets it (see --rewritten-turns)
    refused     a reject, by its reason

It takes the reference path, record by record, so it looks at the first records of each file only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.reasons import REASONS
from sft_shards.formats.records import get
from sft_shards.formats.templates import TOKENIZER, ChatTemplate, Rendering, is_template_file, read_template, train
from sft_shards.formats.terminal import printable, printable_text, quoted
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.containment import internal_error, is_unforeseen
from sft_shards.preprocess.pipeline.reference import configured_template
from sft_shards.preprocess.sources import Source, sample
from sft_shards.preprocess.tasks.plan import planned_sources
from sft_shards.preprocess.tasks.template_file import planned_config
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

EXACT, REWRITTEN, REFUSED = "exact", "rewritten", "refused"
KINDS = (EXACT, REWRITTEN, REFUSED)
REWRITES = ("turn_rewritten", "history_too_long")
"""Reasons of the policy that refuses rewritten turns: of a record that is rewritten, and of one too long to ask."""
WAY_OUT = (
    "--rewritten-turns unroll trains every turn as inference meets it, skip no such turn; the default trains no turn "
    "whose reasoning was dropped"
)
BEFORE, AFTER = 240, 240
"""Characters of an example before its first trained text, and from there on."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What becomes of some records, with one of them as an example."""

    kind: str
    """One of `KINDS`."""
    reason: str
    """Of a reject or a rewritten turn; "" for exact ones."""
    records: int
    source: str
    """File of the example."""
    record: int
    """Its number there, from 0."""
    detail: str
    """What was seen; for an exact one its text, trained parts between ⟦ ⟧."""
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What becomes of the records that were looked at."""

    template: str
    records: int
    outcomes: tuple[Outcome, ...]
    """By kind, in the order of `KINDS`, the most frequent first."""
    notes: dict[str, int]
    """What was noted of records that are not refused, by the names of `NOTES`."""


def try_template(config: JobConfig, most: int) -> Trial:
    """Render the first records of each input under the template that a configuration names.

    Args:
        most: records of each file that are looked at.

    Raises:
        UsageError: an input or the tokenizer cannot be used, or the template can be used for no record.
        DataError: an input is damaged.
    """
    source = read_template(config.template) if is_template_file(config.template) else None
    config = replace(planned_config(config, source), rewritten_turns="refuse")
    inputs = planned_sources(config)
    tokenizer = Tokenizer.configured(config)
    if config.template == TOKENIZER and tokenizer.chat_template is None:
        raise UsageError(f"tokenizer {config.tokenizer}: has no chat template; name a file with --try-template")
    template = configured_template(config, config.template, tokenizer, source)
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], Outcome] = {}
    notes: Counter[str] = Counter()
    for one in inputs:
        for number, kind, reason, detail, noted in _outcomes(one, template, config, most):
            counts[kind, reason] += 1
            notes.update(noted)
            if (kind, reason) not in examples:
                remedy = _remedy(kind, reason)
                examples[kind, reason] = Outcome(
                    kind=kind, reason=reason, records=0, source=one.path, record=number, detail=detail, remedy=remedy
                )
    found = [replace(example, records=counts[key]) for key, example in examples.items()]
    found.sort(key=lambda outcome: (KINDS.index(outcome.kind), -outcome.records))
    return Trial(
        template=template.name, records=counts.total(), outcomes=tuple(found), notes=dict(sorted(notes.items()))
    )


def _outcomes(
    source: Source, template: ChatTemplate, config: JobConfig, most: int
) -> Iterator[tuple[int, str, str, str, tuple[str, ...]]]:
    """Yield for each record its number, kind, reason, detail and notes."""
    form = get(source.format)
    for number, record in sample(source, most, config.max_record_bytes):
        try:
            if isinstance(record, RecordError):
                raise record
            conversation = form.read(record, config.fields)
            rendering = template.render(conversation, by_rule=True)
            try:
                found = train(template, conversation, config.policy)
            except RecordError as error:
                if error.reason not in REWRITES:
                    raise
                yield number, REWRITTEN, error.reason, error.detail, rendering.notes
            else:
                yield number, EXACT, "", _shown(rendering, found.texts[0].spans), rendering.notes
        except RecordError as error:
            yield number, REFUSED, error.reason, error.detail, ()
        except Exception as error:
            if not is_unforeseen(error):
                raise
            bug = internal_error(error)
            yield number, REFUSED, bug.reason, bug.detail, ()


def _remedy(kind: str, reason: str) -> str:
    if kind == REWRITTEN:
        return WAY_OUT
    return REASONS[reason].remedy if kind == REFUSED and reason in REASONS else ""


def _shown(rendering: Rendering, spans: list[tuple[int, int]]) -> str:
    """Return the text around the first trained span, trained parts between ⟦ ⟧."""
    text = rendering.text.replace("⟦", "[").replace("⟧", "]")  # as long, and nobody's brackets are taken for ours
    first = spans[0][0] if spans else 0
    begin, end = max(0, first - BEFORE), min(len(text), first + AFTER)
    pieces, place = ["…" if begin else ""], begin
    for start, stop in spans:
        if start < end:
            pieces += [text[place:start], "⟦", text[start : min(stop, end)], "⟧"]
            place = min(stop, end)
    return "".join([*pieces, text[place:end], "…" if end < len(text) else ""])


def lines(trial: Trial) -> Iterator[str]:
    """Give a trial in lines for people."""
    yield printable(f"template {trial.template}: {trial.records:,} records")
    for kind in KINDS:
        found = [outcome for outcome in trial.outcomes if outcome.kind == kind]
        yield f"{kind:10} {sum(outcome.records for outcome in found):,}"
        for outcome in found:
            what = f"{outcome.records:,} {outcome.reason}, " if outcome.reason else ""
            yield printable(f"  {what}such as record {outcome.record} of {outcome.source}:")
            yield quoted(printable_text(outcome.detail))
            if outcome.remedy:
                yield printable(f"  remedy: {outcome.remedy}")
    for name, count in trial.notes.items():
        yield f"{name} {count:,}"
