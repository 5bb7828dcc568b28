"""Run the conversations over a folder of templates and print exact, refused and wrong by family.

    python -m benchmarks.templates FOLDER --tokenizer DIR [--only WORD] [--every N] [--json FILE]

DIR holds a byte-level tokenizer.json (GPT-2's, Llama 3's); each template gets its control tokens added. Acceptance is
that of the realistic conversations with tools. A sequence is wrong if the oracle says so, or if the batch path and the
reference path differ. Exit status 1 if any is wrong.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks.templates.conversations import Case, conversations
from benchmarks.templates.oracle import Oracle, judge
from benchmarks.templates.tokenizers import family_of, make_tokenizer
from sft_shards.formats.errors import DataError, UsageError
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.pipeline.reference import ReferencePipeline
from sft_shards.preprocess.sources import JsonBatch
from sft_shards.preprocess.tokenizer.backends import choose_backend
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

logging.getLogger("transformers").setLevel(logging.ERROR)


def sequences(pipeline: Any, case: Case) -> tuple[list[int], list[int]] | str:
    """Return ids and mask of a conversation, or the reason why it is refused."""
    raw = JsonBatch.of_texts(0, [json.dumps(case.record).encode()])
    batch = pipeline.batch(raw, "openai")
    for reject in batch.rejects:
        return f"{reject.reason}"
    return batch.ids.tolist(), batch.loss_mask.tolist()


def run_template(path: Path, base: Path, cases: list[Case]) -> list[dict[str, Any]]:
    """Return a verdict for each conversation under one template."""
    source = path.read_text()
    family, stops = family_of(path.stem, source)
    about = {"template": path.stem, "family": family}
    with tempfile.TemporaryDirectory() as folder:
        try:
            make_tokenizer(base, source, stops, Path(folder))
            oracle = Oracle(folder, stops)
            tokenizer = Tokenizer(folder)
            config = JobConfig(inputs=("x",), tokenizer=folder, verify_every=0)
            reference = ReferencePipeline(config, "tokenizer", tokenizer)
            batch_path = Pipeline(config, "tokenizer", tokenizer, choose_backend("auto", tokenizer, [])[0])
        except (UsageError, DataError) as error:
            why = {"verdict": "refused", "reason": "job refused", "detail": str(error)[:300]}
            return [{**about, "case": case.name, "agentic": case.agentic, **why} for case in cases]
        return [
            {**about, "case": case.name, "agentic": case.agentic, **verdict(oracle, reference, batch_path, case)}
            for case in cases
        ]


def verdict(oracle: Oracle, reference: Any, batch_path: Any, case: Case) -> dict[str, str]:
    """Judge one conversation: exact, refused or wrong, and why."""
    got = sequences(reference, case)
    if got != sequences(batch_path, case):
        return {"verdict": "wrong", "reason": "batch path and reference path differ"}
    if isinstance(got, str):
        return {"verdict": "refused", "reason": got}
    try:
        expected = oracle.expect(case.record["messages"], case.record.get("tools"))
    except Exception as error:  # whatever a template raises
        return {"verdict": "wrong", "reason": f"transformers cannot render it: {type(error).__name__}"}
    found = judge(expected, *got)
    if found == "exact":
        return {"verdict": "exact", "reason": ""}
    return {"verdict": "wrong", "reason": found}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokenizer", "base", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", default="", help="Templates whose name has this word (default: all).")
@click.option("--every", default=1, help="Take every Nth conversation (default: 1).")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write every verdict to a file.")
def main(folder: Path, base: Path, only: str, every: int, target: Path | None) -> None:
    """Run the conversations over the templates of FOLDER."""
    cases = conversations()[::every]
    paths = [path for path in sorted(folder.glob("*.jinja")) if only.lower() in path.stem.lower()]
    rows: list[dict[str, Any]] = []
    for path in paths:
        rows += run_template(path, base, cases)
        if target:
            target.write_text(json.dumps(rows, indent=1))
    click.echo(
        "| family | templates | exact | refused | wrong | agentic with tools, accepted | why |\n" + "|---" * 7 + "|"
    )
    for family in sorted({row["family"] for row in rows}):
        own = [row for row in rows if row["family"] == family]
        counts = Counter(row["verdict"] for row in own)
        agentic = [row for row in own if row["agentic"]]
        share = f"{sum(row['verdict'] == 'exact' for row in agentic) / len(agentic):.0%}" if agentic else "-"
        why = Counter(f"{row['verdict']}: {row['reason']}" for row in own if row["verdict"] != "exact")
        told = ", ".join(f"{reason} {count}" for reason, count in why.most_common(4))
        cells = [family, len({row["template"] for row in own}), *(counts[one] for one in ("exact", "refused", "wrong"))]
        click.echo("| " + " | ".join(map(str, [*cells, share, told])) + " |")
    counts = Counter(row["verdict"] for row in rows)
    click.echo(f"\n{len(paths)} templates, {len(cases)} conversations: {dict(sorted(counts.items()))}")
    if counts["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
