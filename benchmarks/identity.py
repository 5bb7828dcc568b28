"""The fast way against the careful one on every record of a folder, under every tokenizer of another.

    python benchmarks/identity.py DATA TOKENIZERS [--limit N] [--map-role client=user ...]

For each file: the records that went the fast way, whether ids, masks and rejects are the same, and the speed of both
in millions of tokens per second of CPU time (one thread, warm where texts repeat; benchmarks/preprocess.py measures).
"""

from __future__ import annotations

import os
import time
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from formats.errors import RecordError, UsageError
from formats.records import FieldMap, detect, get
from preprocess.config import JobConfig
from preprocess.overlong import fit
from preprocess.pipeline import Pipeline
from preprocess.sources import PartReader, Records, find_sources, sample, whole_of
from preprocess.token_engine import choose_engine
from preprocess.tokenizer import Tokenizer


def careful(pipeline: Pipeline, records: Records, form: str) -> tuple[list[Any], list[Any], list[tuple[int, str]]]:
    """Ids, masks and rejects as the careful way gives them."""
    ids, masks, rejects = [], [], []
    outcomes = pipeline._careful(records.some(range(len(records))), get(form))
    for number, outcome in zip(records.numbers.tolist(), outcomes, strict=True):
        try:
            if isinstance(outcome, RecordError):
                raise outcome
            encoded, _ = fit(outcome.encoded, None, "drop")
        except RecordError as error:
            rejects.append((number, error.reason))
            continue
        ids.append(encoded.ids)
        masks.append(encoded.loss_mask)
    return ids, masks, rejects


def flat(parts: list[Any]) -> Any:
    """Arrays, one after the other."""
    return np.concatenate(parts) if parts else np.zeros(0)


def one_file(pipeline: Pipeline, stretches: list[Records], form: str, name: str) -> tuple[int, int, int]:
    """Compare on one file; the records, those that went the fast way, and those in batches that differ."""
    judged, count = 0, sum(map(len, stretches))
    judge = pipeline._careful

    def counted(found: list[Any], format_: Any) -> Any:
        nonlocal judged
        judged += len(found)
        return judge(found, format_)

    pipeline._careful = counted  # type: ignore[method-assign]
    begin = time.process_time()
    batches = [pipeline.batch(records, form) for records in stretches]
    fast_seconds = time.process_time() - begin
    pipeline._careful = judge  # type: ignore[method-assign]
    fast = max(count - judged, 0)  # one that is not sound is judged twice
    begin = time.process_time()
    different = tokens = 0
    for records, batch in zip(stretches, batches, strict=True):
        ids, masks, rejects = careful(pipeline, records, form)
        tokens += len(batch.ids)
        same = np.array_equal(flat(ids), batch.ids) and np.array_equal(flat(masks), batch.loss_mask)
        if not same or rejects != [(one.record, one.reason) for one in batch.rejects]:
            different += len(records)
    slow_seconds = time.process_time() - begin
    rates = f"{tokens / fast_seconds / 1e6:6.2f} {tokens / slow_seconds / 1e6:6.2f}"
    click.echo(f"  {name[:52]:52} {count:7,} {fast:7,}  {'same' if not different else 'DIFFERENT':9} {rates}")
    return count, fast, different


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("tokenizers", type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=int, help="Stretches of about 4 MB of each file; all without.")
@click.option("--map-role", multiple=True, help="NAME=ROLE, as for sft-preprocess run.")
@click.option("--only", help="One tokenizer's name.")
def main(data: Path, tokenizers: Path, limit: int | None, map_role: tuple[str, ...], only: str | None) -> None:
    """Compare on every file under every tokenizer; exit 1 if anything differs."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    roles = dict(pair.split("=", 1) for pair in map_role)
    total = [0, 0, 0]
    for folder in sorted(path for path in tokenizers.iterdir() if (path / "tokenizer.json").is_file()):
        if only not in (None, folder.name):
            continue
        tokenizer = Tokenizer(str(folder))
        engine, check = choose_engine("auto", tokenizer, [])
        config = JobConfig(inputs=("x",), tokenizer=str(folder), map_role=roles)
        template = "tokenizer" if tokenizer.chat_template is not None else "alpaca"
        pipeline = Pipeline(config, template, tokenizer, engine)
        click.echo(f"{folder.name}: {check}\n  {'file':52} records    fast  result      fast   slow Mtok/s")
        for source in find_sources([str(data)]):
            stretches = list(islice(PartReader(source, whole_of(source)).batches(), limit))
            try:
                read = [item for item in sample(source, 200) if not isinstance(item[1], RecordError)]
                form = detect(read, FieldMap(roles=roles), source.path)
            except UsageError as error:
                click.echo(f"  {error}")
                continue
            counts = one_file(pipeline, stretches, form.name, Path(source.path).name)
            total = [one + other for one, other in zip(total, counts, strict=True)]
    click.echo(f"{total[0]:,} records, {total[1]:,} of them the fast way, {total[2]:,} in batches that differ")
    raise SystemExit(1 if total[2] else 0)


if __name__ == "__main__":
    main()
