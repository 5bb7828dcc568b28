"""The pipeline against the reference pipeline on every record of a folder, under every tokenizer of another.

    python benchmarks/identity.py DATA TOKENIZERS [--limit N] [--map-role client=user ...]
    python benchmarks/identity.py DATA TOKENIZERS --shards [--map-role client=user ...]

For each file: its records, how many of them each stage handed to its reference implementation, whether all that the
pipeline gives is the same (ids, masks, splits, digests, rejects, notes), and the speed of both pipelines in millions of
tokens per second of CPU time (one thread, warm where texts repeat; benchmarks/throughput measures). With --shards
instead: the command itself over all files, once with each backend, and whether every file that it wrote is the same,
the manifest aside, which names the backend.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import click
import numpy as np

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, detect
from sft_shards.formats.shards.files import sha256_file
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import Batch
from sft_shards.preprocess.pipeline.pipeline import STAGES, Pipeline
from sft_shards.preprocess.sources import PartReader, RawBatch, Source, find_sources, sample, whole_of
from sft_shards.preprocess.tokenizer.backends import SMALL, choose_backend, load_backend
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


def one_file(pipeline: Pipeline, chunks: list[RawBatch], form: str, name: str) -> tuple[int, int, int]:
    """Compare on one file; return its records, those that took the batch path all the way, and those in batches that
    differ."""
    count, before = sum(map(len, chunks)), pipeline.fallbacks
    begin = time.process_time()
    batches = [pipeline.batch(raw, form) for raw in chunks]
    seconds = time.process_time() - begin
    fallbacks = [pipeline.fallbacks[stage] - before[stage] for stage in STAGES]
    begin = time.process_time()
    different = tokens = 0
    for raw, batch in zip(chunks, batches, strict=True):
        tokens += len(batch.ids)
        if not same(batch, pipeline.reference.batch(raw, form)):
            different += len(raw)
    reference_seconds = time.process_time() - begin
    rates = f"{tokens / seconds / 1e6:6.2f} {tokens / reference_seconds / 1e6:6.2f}"
    handed_on = " ".join(f"{number:8,}" for number in fallbacks)
    result = "DIFFERENT" if different else "same"
    click.echo(f"  {name[:48]:48} {count:8,} {handed_on}  {result:9} {rates}")
    return count, max(count - sum(fallbacks), 0), different


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal in every field."""
    for field in dataclasses.fields(Batch):
        values = getattr(one, field.name), getattr(other, field.name)
        if isinstance(values[0], np.ndarray):
            if values[0].dtype != values[1].dtype or not np.array_equal(*values):
                return False
        elif field.name == "rejects":
            if list(values[0]) != list(values[1]):
                return False
        elif values[0] != values[1]:
            return False
    return True


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
    """Whether the command writes the same bytes with either backend."""
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
@click.option("--limit", type=int, help="Chunks of about 4 MB of each file (default: all).")
@click.option("--map-role", multiple=True, help="NAME=ROLE, as for sft-preprocess run.")
@click.option("--only", help="One tokenizer's name.")
@click.option("--shards", is_flag=True, help="Compare what the command writes with either backend.")
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
        name, check = choose_backend("auto", tokenizer, SMALL)
        backend = load_backend(name, tokenizer)
        config = JobConfig(inputs=("x",), tokenizer=str(folder), map_role=roles, valid_fraction=0.05, dedup=True)
        pipeline = Pipeline(config, template, tokenizer, backend)
        stages = " ".join(f"{stage:>8}" for stage in STAGES)
        click.echo(f"{folder.name}: {check}\n  {'file':48}  records {stages}  result     batch    ref Mtok/s")
        for source, form in files:
            chunks = list(islice(PartReader(source, whole_of(source)).batches(), limit))
            counts = one_file(pipeline, chunks, form, Path(source.path).name)
            total = [one + other for one, other in zip(total, counts, strict=True)]
    if shards:
        raise SystemExit(1 if different else 0)
    click.echo(
        f"{total[0]:,} records, {total[1]:,} of them by the batch path all the way, {total[2]:,} in batches that differ"
    )
    raise SystemExit(1 if total[2] else 0)


if __name__ == "__main__":
    main()
