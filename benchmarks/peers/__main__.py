"""Run the cases through ours and through the peers, and print the tables."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

if not __package__:  # started as a folder: python benchmarks/peers
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.peers.cases import CASES, Case, prepare, record_file
from benchmarks.peers.child import start
from benchmarks.peers.pairs import masked
from benchmarks.peers.projects import PROJECTS
from benchmarks.peers.table import print_case


def ours(case: Case) -> dict[str, Any]:
    """Our shards of a case, made by the command itself."""
    from sft_shards.formats.shards import ShardDirectory

    output = Path(f"{case['folder']}.shards")
    options = ["--tokenizer", case["folder"], "--output", str(output), "--format", "openai", "--workers", "1"]
    program = "from sft_shards.preprocess.cli import main; main()"
    call = [sys.executable, "-c", program, "run", record_file(case), *options]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    ids, mask = ShardDirectory(output).split("train")[0]
    return {"pairs": masked(ids.tolist(), mask.tolist())}


@click.command()
@click.argument("tokenizers", type=click.Path(exists=True, path_type=Path))
@click.option("--qwen3", type=click.Path(exists=True, path_type=Path), help="Qwen3's chat template, a Jinja file.")
@click.option("--peer", "peers", multiple=True, metavar="NAME[=CHECKOUT]", help=f"One of {', '.join(PROJECTS)}.")
@click.option("--python", "programs", multiple=True, metavar="NAME=PROGRAM", help="Its Python. (default: this one)")
def main(tokenizers: Path, qwen3: Path | None, peers: tuple[str, ...], programs: tuple[str, ...]) -> None:
    """Print the same conversations as other preprocessors make them, token by token."""
    checkouts = dict(one.partition("=")[::2] for one in peers or ("hf",))
    pythons = dict(one.split("=", 1) for one in programs)
    if unknown := set(checkouts) - set(PROJECTS):
        raise click.UsageError(f"--peer {', '.join(sorted(unknown))}: unknown; known are {', '.join(PROJECTS)}")
    with tempfile.TemporaryDirectory() as scratch:
        prepared = (prepare(case, tokenizers, qwen3, Path(scratch) / str(at)) for at, case in enumerate(CASES))
        cases = [case for case in prepared if case is not None]
        found = {
            name: start(name, checkout, pythons.get(name, sys.executable), cases)
            for name, checkout in checkouts.items()
        }
        for at, case in enumerate(cases):
            print_case(case, ours(case), {name: peer["results"][at] for name, peer in found.items()})
    for name, peer in found.items():
        click.echo(f"{PROJECTS[name].title}: {peer['version']}")


if __name__ == "__main__":
    main()
