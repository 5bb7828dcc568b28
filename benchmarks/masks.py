"""Every conversation of a folder under every tokenizer of another: are the ids inference's, and the trained text the
assistants'? Prints a table per tokenizer; docs/masks.md quotes it.

    python benchmarks/masks.py DATA TOKENIZERS [--limit N] [--map-role client=user ...]

For each conversation that is not refused, two things are checked with code that is not ours: the ids equal
`apply_chat_template(tokenize=True)` (without a chat template: the ids of the whole text), and the decoded trained
tokens of each turn equal the assistant's text and the stop token, white space aside (templates trim).
"""

from __future__ import annotations

import collections
import logging
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from sft_shards.formats.conversation import Conversation
from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, detect
from sft_shards.formats.templates import ChatTemplate, Rendering, Spoken, TrainedText, TrainOn
from sft_shards.preprocess.pipeline.reference import load_template
from sft_shards.preprocess.pipeline.rendered_texts import as_batch
from sft_shards.preprocess.pipeline.tokenize import ReferenceTokenization
from sft_shards.preprocess.sources import find_sources, sample
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

logging.getLogger("transformers").setLevel(logging.ERROR)


def check(
    conversation: Conversation,
    rendering: Rendering,
    ids: NDArray[np.int32],
    loss_mask: NDArray[np.uint8],
    straddling: int,
    tokenizer: Tokenizer,
    reference: PreTrainedTokenizerFast,
    own: bool,
) -> list[str]:
    """What is noteworthy about a sequence: words that are counted."""
    out = ["conversations"]
    if rendering.typed:
        out.append("with typed control tokens")
    else:
        messages, tools = conversation.messages(), list(conversation.tools) or None
        if own:
            expected: Any = reference.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
        else:
            expected = reference(rendering.text, add_special_tokens=False).input_ids
        out.append("ids equal" if expected == ids.tolist() else "IDS DIFFER")
    if straddling:
        out.append("with a straddling token")
    cuts = np.flatnonzero(np.diff(np.concatenate([[0], loss_mask, [0]]).astype(int)))
    trained = [ids[a:b].tolist() for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    runs: list[list[Spoken]] = []  # turns that follow each other without a header in between are one trained span
    for spoken in rendering.spoken:
        if runs and runs[-1][-1].end == spoken.start:
            runs[-1].append(spoken)
        else:
            runs.append([spoken])
    if len(trained) != len(runs):
        return [*out, "SPANS MISSING"]
    for span, run in zip(trained, runs, strict=True):
        text = tokenizer.backend.decode(span, skip_special_tokens=False)
        wanted = "".join(wanted_text(one, conversation, rendering) for one in run)
        if not text.endswith(rendering.text[run[-1].stop : run[-1].end]):
            out.append("STOP TOKEN MISSING")
        out += ["turns" if "".join(text.split()) == wanted else "turns decoded otherwise"] * len(run)
    return out


def wanted_text(spoken: Spoken, conversation: Conversation, rendering: Rendering) -> str:
    """What a turn's trained tokens must say, white space aside: the record's own words and the stop token."""
    turn = conversation.turns[spoken.turn]
    said = rendering.text[spoken.start : spoken.stop] if turn.tool_calls else turn.content or ""
    return "".join((said + rendering.text[spoken.stop : spoken.end]).split())


def one_tokenizer(folder: Path, data: Path, fields: FieldMap, limit: int | None) -> None:
    """Print the table of one tokenizer."""
    tokenizer = Tokenizer(str(folder))
    reference = PreTrainedTokenizerFast.from_pretrained(str(folder))
    own = tokenizer.chat_template is not None
    template: ChatTemplate = load_template("tokenizer" if own else "alpaca", tokenizer)
    stage = ReferenceTokenization(tokenizer, template.control.all, straddle="train")
    total, examples = collections.Counter[str](), {}
    for source in find_sources([str(data)]):
        items = sample(source, limit or 1 << 40)
        try:
            form = detect([item for item in items[:200] if not isinstance(item[1], RecordError)], fields, source.path)
        except UsageError as error:
            click.echo(f"  {error}")
            continue
        for number, record in items:
            try:
                if isinstance(record, RecordError):
                    raise record
                conversation = form.read(record, fields)
                rendering = template.render(conversation)
                spans = TrainOn().spans(rendering, conversation)
                text = TrainedText(rendering=rendering, spans=spans, turns=())
                tokenized = stage.tokenize(as_batch([number], [text], [], [], {}))
                for reject in tokenized.rejects:
                    raise RecordError(reject.reason, reject.detail)
                ids, loss_mask = tokenized.sequence(0)
                straddling = int(tokenized.straddling[0])
                words = check(conversation, rendering, ids, loss_mask, straddling, tokenizer, reference, own)
            except RecordError as error:
                words = [f"refused: {error.reason}"]
                examples.setdefault(words[0], f"{Path(source.path).name} record {number}: {error.detail}")
            total.update(words)
    click.echo(f"{folder.name} (template {template.name})")
    for word, count in sorted(total.items()):
        click.echo(f"  {count:>9,}  {word}" + (f"   e.g. {examples[word]}" if word in examples else ""))


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("tokenizers", type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=int, help="Records of each file (default: all).")
@click.option("--map-role", multiple=True, help="NAME=ROLE, as for sft-preprocess run.")
@click.option("--only", help="One tokenizer's name.")
def main(data: Path, tokenizers: Path, limit: int | None, map_role: tuple[str, ...], only: str | None) -> None:
    """Check every conversation under every tokenizer."""
    fields = FieldMap(roles=dict(pair.split("=", 1) for pair in map_role))
    for folder in sorted(path for path in tokenizers.iterdir() if (path / "tokenizer.json").is_file()):
        if only in (None, folder.name):
            one_tokenizer(folder, data, fields, limit)


if __name__ == "__main__":
    main()
