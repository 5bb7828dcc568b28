"""Why a record is left out, and what else a job counts: one table each, which docs/formats.md repeats.

A `RecordError` of this package has a reason out of `REASONS`, which a test holds. A record format of another package
may bring reasons of its own. The reasons are keys of `rejects.jsonl` and of the manifest, so they never change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What a reason means, in words that fit behind "left out because"."""

    meaning: str
    remedy: str


REASONS = {
    "broken_json": Reason(meaning="the record is not valid JSON", remedy="mend the line"),
    "broken_utf8": Reason(meaning="a text is not UTF-8", remedy="convert the file to UTF-8"),
    "broken_csv": Reason(meaning="the row has another number of cells than the first one", remedy="mend the row"),
    "too_large": Reason(
        meaning="the record has more bytes than --max-record-bytes", remedy="raise it, or split the record"
    ),
    "missing_field": Reason(meaning="a field of the format is missing", remedy="name its column with --field"),
    "wrong_type": Reason(meaning="a field has a value of another type", remedy="mend the record, or choose --format"),
    "unknown_role": Reason(meaning="a speaker has no known role", remedy="give the role with --map-role"),
    "malformed_chatml": Reason(meaning="the text is not a sequence of whole ChatML turns", remedy="mend the text"),
    "fractional_weight": Reason(meaning="a weight is neither 0 nor 1", remedy="round it: a loss mask holds 0 or 1"),
    "not_text": Reason(meaning="the record has pictures, sound or video", remedy="none: only text can be trained"),
    "no_assistant_turn": Reason(meaning="no turn is the assistant's", remedy="map a role with --map-role assistant"),
    "empty_assistant_turn": Reason(meaning="an assistant's turn has neither text nor tool call", remedy="fill it"),
    "empty_instruction": Reason(meaning="neither the instruction nor the input has text", remedy="fill one of them"),
    "nested_too_deeply": Reason(
        meaning="arrays and objects are nested more than 200 deep", remedy="flatten them, or leave them out"
    ),
    "duplicate_column": Reason(
        meaning="two columns of the table have the same name", remedy="rename or remove one of them"
    ),
    "lone_surrogate": Reason(meaning="a text holds half of a surrogate pair (U+D800…)", remedy="mend the text"),
    "reserved_character": Reason(
        meaning="a text holds a noncharacter (U+FDD0…)",
        remedy="remove these characters",
    ),
    "reasoning_unknown": Reason(
        meaning="reasoning is to carry no loss, and it is not certain where it ends in the rendered text",
        remedy="leave out --no-train-reasoning, or choose another --template",
    ),
    "template_error": Reason(
        meaning="the chat template refuses the conversation; the detail is its own message",
        remedy="mend the conversation, or choose --template",
    ),
    "turn_not_rendered": Reason(
        meaning="the template leaves a turn's text or tool calls out", remedy="choose another --template"
    ),
    "turn_repeated": Reason(meaning="the template writes a turn more than once", remedy="choose another --template"),
    "turn_start_unknown": Reason(
        meaning="it is not certain where a turn begins in the rendered text", remedy="choose another --template"
    ),
    "turn_end_unknown": Reason(
        meaning="no stop token ends a turn in the rendered text", remedy="choose another --template"
    ),
    "turn_differs": Reason(
        meaning="a turn was located at another place than what inference would generate",
        remedy="choose another --template",
    ),
    "paths_differ": Reason(
        meaning="the batch path and the reference path differ on the record, which the sample found",
        remedy="nothing: it is left out; report it with the record, so that such records can be kept",
    ),
    "turn_rewritten": Reason(
        meaning="the template writes a turn otherwise, once others follow, than inference meets it",
        remedy="choose another --rewritten-turns or --template",
    ),
    "turn_not_generated": Reason(
        meaning="the template writes a turn otherwise than inference generates it even where it is the last one",
        remedy="choose --rewritten-turns auto, or another --template",
    ),
    "history_too_long": Reason(
        meaning="the histories of all turns together are too long to be rendered one by one",
        remedy="choose --rewritten-turns auto, or split the record",
    ),
    "turn_interrupted": Reason(
        meaning="the template writes another message's text inside of an assistant's turn",
        remedy="choose another --template, or move the text beside a tool call into a turn of its own",
    ),
    "marks_change_rendering": Reason(
        meaning="the template decides by the texts in a way that cannot be traced", remedy="choose another --template"
    ),
    "generation_blocks": Reason(
        meaning="the template's generation blocks do not match the turns", remedy="choose another --template"
    ),
    "typed_control_token": Reason(
        meaning="a text spells a control token, which the tokenizer or the template cannot keep as text",
        remedy="remove it, or give --allow-control-tokens",
    ),
    "empty": Reason(meaning="the text is blank, or has no tokens", remedy="fill the record"),
    "overlong": Reason(
        meaning="the sequence is longer than --max-length", remedy="raise it, or choose another --overlong"
    ),
    "no_trained_token": Reason(meaning="no token carries loss", remedy="raise --max-length, or change --train-on"),
    "duplicate": Reason(meaning="the conversation equals an earlier one", remedy="leave out --dedup to keep it"),
    "internal_error": Reason(
        meaning="sft-shards itself failed on the record: a bug, and the detail says where it is",
        remedy="report it with the record",
    ),
}
"""By reason."""

NOTES = {
    "cut": "sequences that were cut to --max-length",
    "documents_ignored": "conversations whose documents the template does not render",
    "history_rewritten": "conversations of a kind whose earlier turns the template rewrites, trained as they stand",
    "normalized_or_lossy": "sequences whose tokens spell another text than was rendered",
    "reasoning_dropped": "conversations of which the template leaves reasoning out",
    "rewritten_turns_without_loss": "assistant turns without loss, since the template rewrites them",
    "straddling_tokens": "tokens that begin before trained text and end inside it",
    "tools_ignored": "conversations whose tools the template does not render",
    "typed_control_tokens": "conversations in which a text spells a control token",
    "unrolled_dropped": "sequences left out by --overlong alone, others of the same conversation being kept",
    "unrolled_sequences": "sequences of unrolled conversations, without the last one of each",
    "unrolled_tokens": "tokens of these sequences",
}
"""By name, what the notes of a manifest count."""
