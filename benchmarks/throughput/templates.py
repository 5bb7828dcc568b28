"""Our command beside the loop, under each of many templates: records of one kind, made of the texts of the corpus.

A tokenizer folder is made for each template: a vocabulary with the control tokens that the template writes (see
`benchmarks.templates.tokenizers`). No published template marks its answers, so the loop here gives ids without masks.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from benchmarks.templates.tokenizers import family_of, make_tokenizer
from benchmarks.throughput.bench import Bench, print_table
from benchmarks.throughput.child import NotRunError
from benchmarks.throughput.contenders import IDS_ALONE
from benchmarks.throughput.corpus import CannotTakeError, Message, rendered
from benchmarks.throughput.kinds import KINDS, LOOP_SHARE, OURS, Kind, write
from benchmarks.throughput.measure import Measured


def templates(bench: Bench) -> list[dict[str, Any]]:
    """Run both under each template, and print our speed beside the loop's."""
    if bench.templates is None:
        raise SystemExit("--mode templates needs --templates FOLDER")
    messages = bench.corpus.messages()
    kind = KINDS[bench.kind]
    rows = []
    table = []
    for path in sorted(bench.templates.glob("*.jinja")):
        folder = bench.corpus.folder / f"template-{len(rows)}"
        source = path.read_text("utf-8")
        family = family_of(path.stem, source)
        base = bench.sentencepiece if family.sentencepiece and bench.sentencepiece else bench.corpus.tokenizer
        make_tokenizer(base, source, family, folder / "tokenizer")
        taken = taken_by(folder / "tokenizer", messages, kind)
        if not taken:
            print(f"{path.stem}: refuses such records", file=sys.stderr, flush=True)
            continue
        try:
            row = compared(bench, folder, taken, kind)
        except NotRunError as error:  # every record was left out, say
            print(f"{path.stem}: {error}", file=sys.stderr, flush=True)
            continue
        rows.append({"template": path.stem, **row})
        speeds = [f"{1e-6 / row['seconds_per_token']:.2f}", f"{1e-6 / row['loop']:.2f}", f"{row['ratio']:.1f}"]
        table.append([path.stem, *speeds, said_of(row)])
        print(" | ".join(table[-1]), file=sys.stderr, flush=True)
    print_table(["template", "M tokens/s", "the loop", "ratio", "ids"], table)
    return rows


def taken_by(tokenizer: Path, messages: list[list[Message]], kind: Kind) -> list[list[Message]]:
    """The conversations that a tokenizer's template takes, without its control tokens in their texts.

    There are none where it does not take the last one as a record of the kind.
    """
    renderer = PreTrainedTokenizerFast.from_pretrained(str(tokenizer))
    record = (kind.loop or kind.make)(messages[-1], 0)
    try:
        renderer.apply_chat_template(record["messages"], record.get("tools"), tokenize=False)
    except Exception:
        return []
    control = [str(token) for token in renderer.added_tokens_decoder.values() if str(token)]
    taken = []
    for one in messages:
        try:
            rendered(renderer, one, control)
        except CannotTakeError:
            continue
        taken.append(one)
    return taken


def compared(bench: Bench, folder: Path, messages: list[list[Message]], kind: Kind) -> dict[str, Any]:
    """Run both: ours over all conversations but one, the loop over the first of them, whose ids are compared."""
    share = len(messages) // LOOP_SHARE
    loops = kind.loop or kind.make
    write(folder / "corpus", kind.make, messages[:-1], kind.file)
    write(folder / "share", loops, messages[:share])
    write(folder / "one", loops, messages[-1:])
    write(folder / "own-one", kind.make, messages[-1:], kind.file)
    kept, tokenizer = folder / "ids.npz", str(folder / "tokenizer")
    seconds: dict[str, list[float]] = {IDS_ALONE: [], OURS: []}
    agreement = None
    for turn in range(bench.rounds):
        for contender in list(seconds)[:: 1 if turn % 2 == 0 else -1]:
            loop = contender == IDS_ALONE
            settings = {} if loop else {"record_format": kind.record_format, "file": kind.file}
            found = bench.run(
                contender,
                part=folder / ("share" if loop else "corpus"),
                one=folder / ("one" if loop else "own-one"),
                keep=kept if loop else None,
                reference=None if loop else kept,
                tokenizer=tokenizer,
                marked=tokenizer,
                **settings,
            )
            made = Measured.of(found)
            seconds[contender].append(made.cpu / made.tokens)
            agreement = made.agreement or agreement
    assert agreement is not None, "the loop runs first"
    ours, theirs = (statistics.median(seconds[name]) for name in (OURS, IDS_ALONE))
    return {
        "records": len(messages),
        "seconds_per_token": ours,
        "loop": theirs,
        "ratio": theirs / ours,
        "compared": share,
        **asdict(agreement),
    }


def said_of(row: dict[str, Any]) -> str:
    """How the ids agree, in the words of the table."""
    if row["ids_equal"] == row["compared"]:
        return f"all {row['compared']:,} equal"
    if row["ids_equal"] + row["shorter"] + row["longer"] == row["compared"]:
        return f"equal but for what {'ends' if row['shorter'] else 'is added to'} the last turn"
    return f"**{row['ids_equal']:,} of {row['compared']:,} equal**"
