"""Run the conversations over a folder of templates and print exact, refused and wrong by family.

    python -m benchmarks.templates FOLDER --tokenizer DIR --sentencepiece DIR --results DIR [--only WORD] [--every N]

The tokenizers' folders hold a byte-level tokenizer.json (GPT-2's, Llama 3's) and one of SentencePiece's kind
(Llama 2's, Mistral's); each template gets its control tokens added. Acceptance is that of the realistic conversations
with tools: of all, and of those that the template can say. It cannot say what it raises for or leaves out, nor a turn
that it writes without a header or a stop token, or in two pieces. A sequence is wrong if the oracle says so, or if the
batch path and the reference path differ. A run that was ended goes on where it was. Exit status 1 if any is wrong.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import click

from benchmarks.templates.conversations import conversations
from benchmarks.templates.runner import Bases, reading_calls, run, verdicts
from benchmarks.templates.tables import acceptance, by_obstacle, by_reason, examples

logging.getLogger("transformers").setLevel(logging.ERROR)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--tokenizer", "byte_level", required=True, type=FOLDER, help="A byte-level tokenizer.")
@click.option("--sentencepiece", required=True, type=FOLDER, help="A SentencePiece tokenizer.")
@click.option("--results", required=True, type=click.Path(path_type=Path), help="Where verdicts are kept.")
@click.option("--only", default="", help="Templates whose name matches this expression (default: all).")
@click.option("--every", default=1, help="Take every Nth conversation (default: 1).")
@click.option("--jobs", default=1, help="Processes at a time (default: 1).")
@click.option("--limit", default=300.0, help="Seconds that a template may take (default: 300).")
@click.option("--examples", "count", default=0, help="Print that many examples of each kind (default: 0).")
def main(
    folder: Path,
    byte_level: Path,
    sentencepiece: Path,
    results: Path,
    only: str,
    every: int,
    jobs: int,
    limit: float,
    count: int,
) -> None:
    """Run the conversations over the templates of FOLDER."""
    cases = conversations()[::every]
    paths = [path for path in sorted(folder.glob("*.jinja")) if re.search(only, path.stem, re.IGNORECASE)]
    run(paths, Bases(byte_level=byte_level, sentencepiece=sentencepiece), cases, results, jobs, limit)
    found = list(verdicts(results, paths, cases))
    click.echo(acceptance(found, reading_calls(paths)))
    click.echo(by_reason(found))
    click.echo(by_obstacle(found))
    if count:
        click.echo(examples(found, count))
    if any(one.verdict == "wrong" for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
