"""Make the corpus, run a mode, and print its table."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

if not __package__:  # started as a folder: python benchmarks/throughput
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.throughput import corpus
from benchmarks.throughput.against import against
from benchmarks.throughput.bench import Bench
from benchmarks.throughput.contenders import CONTENDERS
from benchmarks.throughput.contest import contest
from benchmarks.throughput.files import files
from benchmarks.throughput.kinds import KINDS, kinds
from benchmarks.throughput.record_formats import record_formats
from benchmarks.throughput.scaling import scaling
from benchmarks.throughput.stages import stages
from benchmarks.throughput.templates import templates

MODES: dict[str, Callable[[Bench], Any]] = {
    "scaling": scaling,
    "stages": stages,
    "formats": record_formats,
    "kinds": kinds,
    "files": files,
    "templates": templates,
}
BUILT_IN = [name for name, kind in KINDS.items() if kind.record_format != "pairs"]
FOLDER = click.Path(exists=True, path_type=Path)
VERSIONS = ("transformers", "tokenizers", "datasets", "fastokens")


def pairs(given: tuple[str, ...]) -> dict[str, str]:
    """What options of the form NAME=VALUE say."""
    if wrong := [one for one in given if "=" not in one]:
        raise click.UsageError(f"{wrong[0]}: must be NAME=VALUE")
    return dict(one.split("=", 1) for one in given)


@click.command()
@click.argument("data", type=FOLDER)
@click.argument("tokenizer", type=FOLDER)
@click.option("--mode", type=click.Choice(["contenders", *MODES]), default="contenders", show_default=True)
@click.option("--against", "other", type=FOLDER, metavar="DIR", help="Compare with another checkout of ours instead.")
@click.option("--megabytes", type=float, default=16.0, show_default=True, help="Rendered text to run over.")
@click.option("--turns", type=click.IntRange(0), default=0, help="Take conversations of so many turns or more alone.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CONTENDERS)), help="A contender. (default: all of them)")
@click.option("--checkout", multiple=True, metavar="NAME=PATH", help="A contender's source: gpt-neox, megatron.")
@click.option("--python", "programs", multiple=True, metavar="NAME=PROGRAM", help="A contender's Python.")
@click.option("--map-role", multiple=True, metavar="NAME=ROLE", help="As for sft-preprocess run.")
@click.option("--marked", type=FOLDER, help="The template with {% generation %}. (default: made from Qwen2.5's)")
@click.option("--templates", "folder", type=FOLDER, help="For --mode templates: a folder of Jinja files.")
@click.option("--sentencepiece", type=FOLDER, help="There: the tokenizer of templates of SentencePiece families.")
@click.option("--kind", type=click.Choice(BUILT_IN), default="text-only", show_default=True, help="There: of records.")
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Write the numbers there as well.")
def main(
    data: Path,
    tokenizer: Path,
    mode: str,
    other: Path | None,
    megabytes: float,
    turns: int,
    rounds: int,
    only: tuple[str, ...],
    checkout: tuple[str, ...],
    programs: tuple[str, ...],
    map_role: tuple[str, ...],
    marked: Path | None,
    folder: Path | None,
    sentencepiece: Path | None,
    kind: str,
    as_json: Path | None,
) -> None:
    """How fast are conversations turned into shards, beside what people use today?"""
    with tempfile.TemporaryDirectory(prefix="sft-benchmark-") as name:
        size = megabytes * 1e6
        made = corpus.make(data, Path(name), tokenizer, marked=marked, roles=pairs(map_role), size=size, turns=turns)
        print(f"{made.conversations:,} conversations, {made.bytes / 1e6:.1f} MB of rendered text")
        for reason, count in made.left_out.items():
            print(f"left out: {count:,} {reason}", file=sys.stderr)
        bench = Bench(
            corpus=made,
            rounds=rounds,
            data=data,
            roles=pairs(map_role),
            checkouts=pairs(checkout),
            programs=pairs(programs),
            templates=folder,
            sentencepiece=sentencepiece,
            kind=kind,
        )
        result: Any
        if other is not None:
            mode, result = "against", against(bench, other)
        elif mode == "contenders":
            result = contest(bench, list(only or CONTENDERS))
        else:
            result = MODES[mode](bench)
    if as_json:
        held = {"conversations": made.conversations, "bytes": made.bytes, "left_out": made.left_out}
        versions = {name: importlib.metadata.version(name) for name in VERSIONS}
        as_json.write_text(json.dumps({"mode": mode, "corpus": held, "versions": versions, "result": result}))


if __name__ == "__main__":
    main()
