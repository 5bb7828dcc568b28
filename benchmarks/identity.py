"""The fast way against the careful one on every record of a folder, under every tokenizer of another.

    python benchmarks/identity.py DATA TOKENIZERS [--limit N] [--map-role client=user ...]
    python benchmarks/identity.py DATA TOKENIZERS --shards [--map-role client=user ...]

For each file: the records that went the fast way, whether ids, masks and rejects are the same, and the speed of both
in millions of tokens per second of CPU time (one thread, warm where texts repeat; benchmarks/preprocess.py measures).
With --shards instead: the command itself over all files, once with each engine, and whether every file that it wrote
is the same, the manifest aside, which names the engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, detect, get
from sft_shards.formats.shards.files import sha256_file
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.pipeline.truncation import fit
from sft_shards.preprocess.sources import PartReader, RawBatch, Source, find_sources, sample, whole_of
from sft_shards.preprocess.tokenizer.backends import choose_engine
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


def careful(pipeline: Pipeline, records: RawBatch, form: str) -> tuple[list[Any], list[Any], list[tuple[int, str]]]:
    """Ids, masks and rejects as the careful way gives them."""
    ids, masks, rejects = [], [], []
    outcomes = pipeline._careful(records.values(range(len(records))), get(form))
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


def one_file(pipeline: Pipeline, stretches: list[RawBatch], form: str, name: str) -> tuple[int, int, int]:
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


def usable(data: Path, roles: dict[str, str]) -> list[tuple[Source, str]]:
    """The files of a folder that have a known format, and which."""
    found = []
    for source in find_sources([str(data)]):
        read = [item for item in sample(source, 200) if not isinstance(item[1], RecordError)]
        try:
            found.append((source, detect(read, FieldMap(roles=roles), source.path).name))
        except UsageError as error:
            click.echo(f"  {error}")
    return found


def same_shards(files: list[str], folder: Path, template: str, map_role: tuple[str, ...]) -> bool:
    """Whether the command writes the same bytes with either engine."""
    made = {}
    with tempfile.TemporaryDirectory() as name:
        for engine in ("auto", "hf"):
            output = Path(name) / engine
            options = ["--tokenizer", folder, "--template", template, "--workers", "1", "--tokenizer-engine", engine]
            options += [word for pair in map_role for word in ("--map-role", pair)]
            program = "from sft_shards.preprocess.cli import main; main()"
            call = [sys.executable, "-c", program, "run", *files, "--output", output, *options, "--json"]
            done = subprocess.run([*map(str, call)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr.strip().splitlines()[-1])
            written = [path for path in sorted(output.rglob("*")) if path.is_file() and path.name != "manifest.json"]
            made[engine] = {str(path.relative_to(output)): sha256_file(path) for path in written}
            result = json.loads(done.stdout)
            click.echo(f"  {engine}: {result['counts']['written']:,} of {result['counts']['read']:,} records written")
            click.echo(f"    {result['notes']['engine']}")
    same = made["auto"] == made["hf"]
    click.echo(f"  {len(made['hf'])} files: {'the same' if same else 'DIFFERENT'}")
    return same


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("tokenizers", type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=int, help="Stretches of about 4 MB of each file; all without.")
@click.option("--map-role", multiple=True, help="NAME=ROLE, as for sft-preprocess run.")
@click.option("--only", help="One tokenizer's name.")
@click.option("--shards", is_flag=True, help="Compare what the command writes with either engine.")
def main(
    data: Path, tokenizers: Path, limit: int | None, map_role: tuple[str, ...], only: str | None, shards: bool
) -> None:
    """Compare on every file under every tokenizer; exit 1 if anything differs."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    roles = dict(pair.split("=", 1) for pair in map_role)
    total = [0, 0, 0]
    files = usable(data, roles)
    different = False
    for folder in sorted(path for path in tokenizers.iterdir() if (path / "tokenizer.json").is_file()):
        if only not in (None, folder.name):
            continue
        tokenizer = Tokenizer(str(folder))
        template = "tokenizer" if tokenizer.chat_template is not None else "alpaca"
        if shards:
            click.echo(f"{folder.name}:")
            different |= not same_shards([source.file for source, _ in files], folder, template, map_role)
            continue
        engine, check = choose_engine("auto", tokenizer, [])
        config = JobConfig(inputs=("x",), tokenizer=str(folder), map_role=roles)
        pipeline = Pipeline(config, template, tokenizer, engine)
        click.echo(f"{folder.name}: {check}\n  {'file':52} records    fast  result      fast   slow Mtok/s")
        for source, form in files:
            stretches = list(islice(PartReader(source, whole_of(source)).batches(), limit))
            counts = one_file(pipeline, stretches, form, Path(source.path).name)
            total = [one + other for one, other in zip(total, counts, strict=True)]
    if shards:
        raise SystemExit(1 if different else 0)
    click.echo(f"{total[0]:,} records, {total[1]:,} of them the fast way, {total[2]:,} in batches that differ")
    raise SystemExit(1 if total[2] else 0)


if __name__ == "__main__":
    main()
