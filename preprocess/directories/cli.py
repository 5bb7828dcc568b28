"""The commands of `sft-preprocess` on finished shard directories."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.terminal import say, width_of
from sft_shards.preprocess.options import COLOR, DIRECTORY, Output, Whole, option, wants_colour

SPLIT = option("--split", default="train", help="Split to look into.")
SEQ_LENGTHS = option(
    "--seq-length",
    "seq_lengths",
    type=Whole(1),
    multiple=True,
    metavar="L",
    default_words="2048, 4096 and 8192",
    help="Positions of a sample for which packing is tried; may be repeated.",
)
OVERLONG = option(
    "--overlong",
    type=click.Choice(["truncate", "drop"]),
    default="truncate",
    help="What sft-train does with conversations that do not fit.",
)


@click.command()
@click.argument("directory", type=DIRECTORY)
@SPLIT
@option("--row", type=Whole(0), default=0, default_words="0", help="Number of the first sequence to look at, from 0.")
@option("-n", "count", type=Whole(1), default=1, help="Sequences to show.")
@click.option("--random", "order", flag_value="random", help="Choose them by chance.")
@click.option("--longest", "order", flag_value="longest", help="The ones with the most tokens first.")
@click.option("--shortest", "order", flag_value="shortest", help="The ones with the fewest tokens first.")
@option("--seed", type=Whole(0), default_words="0 for --random, sft-train's own 1234 for --pack", help="Of the chance.")
@option("--source", default="", metavar="TEXT", help="Only of sources that have this in their path.")
@option("--record", type=Whole(0), metavar="N", help="Only of this record of the source, counted from 0.")
@option("--grep", default="", metavar="REGEX", help="Only those in whose text this is found.")
@click.option("--tokens", is_flag=True, help="Show a line for each token: place, id, + for loss, text.")
@option("--pack", type=Whole(0), metavar="N", help="Show this training sample with all of its conversations.")
@option("--seq-length", type=Whole(1), metavar="L", help="Positions of a sample, for --pack.")
@OVERLONG
@COLOR
@click.option("--json", "as_json", is_flag=True, help="Print ids, mask and text as JSON, a line for each sequence.")
def inspect(
    directory: Path,
    split: str,
    row: int,
    count: int,
    order: str | None,
    seed: int | None,
    source: str,
    record: int | None,
    grep: str,
    tokens: bool,
    pack: int | None,
    seq_length: int | None,
    overlong: str,
    color: str,
    as_json: bool,
) -> None:
    """Show sequences, or a packed sample, with what carries loss marked.

    Trained text stands between ⟦ ⟧, and is green where there are colours.
    """
    from sft_shards.preprocess.directories.rows import RowQuery
    from sft_shards.preprocess.directories.show import Viewer

    if (pack is None) != (seq_length is None):
        raise UsageError("--pack N and --seq-length L belong together; give both")
    colour = wants_colour(color)
    viewer = Viewer(directory, split, colour=colour and not as_json, tokens=tokens)
    if pack is not None and seq_length is not None:
        sample = viewer.sample(pack, seq_length=seq_length, overlong=overlong, seed=seed)
        for line in [viewer.pack_as_json(sample)] if as_json else viewer.pack(sample):
            click.echo(line, color=colour)
        return
    query = RowQuery(
        first=row, count=count, order=order or "row", seed=seed or 0, source=source, record=record, pattern=grep
    )
    for number in viewer.rows(query):
        for line in [viewer.row_as_json(number)] if as_json else viewer.row(number, several=count > 1):
            click.echo(line, color=colour)


@click.command()
@click.argument("directory", type=DIRECTORY)
@option("--reason", default="", help="Only records that were left out for this reason.")
@option("--source", default="", metavar="TEXT", help="Only of sources that have this in their path.")
@option("-n", "count", type=Whole(0), default_words="1; 5 with --reason", help="Records to show of each reason.")
@COLOR
@click.option("--json", "as_json", is_flag=True, help="Print counts and records as JSON.")
def rejects(directory: Path, reason: str, source: str, count: int | None, color: str, as_json: bool) -> None:
    """Say how many records were left out and why, and show them as they stand in their files.

    DIRECTORY is finished, or that of a job which was refused because it lost too much.
    """
    from sft_shards.preprocess.directories.rejects import find_rejects, lines

    most = count if count is not None else 5 if reason else 1
    found = find_rejects(directory, reason=reason, source=source, count=most)
    if as_json:
        click.echo(json.dumps(found.as_dict(), ensure_ascii=False, default=str))
        return
    colour = wants_colour(color)
    for line in lines(found, colour=colour, width=width_of(sys.stdout)):
        click.echo(line, color=colour)


@click.command()
@click.argument("directory", type=DIRECTORY)
@SEQ_LENGTHS
@OVERLONG
@option("--global-batch", type=Whole(1), default=128, help="Samples of a step, for the steps of an epoch.")
@COLOR
@click.option("--json", "as_json", is_flag=True, help="Print the statistics as JSON.")
def stats(
    directory: Path, seq_lengths: tuple[int, ...], overlong: str, global_batch: int, color: str, as_json: bool
) -> None:
    """Sum up sources, lengths and trained shares, and say how each sequence length packs."""
    from sft_shards.preprocess.directories.statistics import SEQ_LENGTHS as USUAL
    from sft_shards.preprocess.directories.statistics import statistics
    from sft_shards.preprocess.directories.stats import as_dict, lines

    found = statistics(directory, seq_lengths=seq_lengths or USUAL, overlong=overlong)
    if as_json:
        click.echo(json.dumps(as_dict(found, global_batch=global_batch), ensure_ascii=False))
        return
    colour = wants_colour(color)
    for line in lines(found, global_batch=global_batch, colour=colour, width=width_of(sys.stdout)):
        click.echo(line, color=colour)


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--quick", is_flag=True, help="Check only files, sizes, headers and sums.")
@option(
    "--allowed-signers",
    type=DIRECTORY,
    metavar="FILE",
    help="Check who signed the manifest as well: OpenSSH's file of the keys that may sign, a line 'NAME KEY' each.",
)
@option(
    "--signature",
    type=DIRECTORY,
    metavar="FILE",
    default_words="manifest.json.sig in DIRECTORY",
    help="The signature, which the maker wrote by 'ssh-keygen -Y sign -n sft-shards -f KEY DIRECTORY/manifest.json'.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
def verify(directory: Path, quick: bool, allowed_signers: Path | None, signature: Path | None, as_json: bool) -> None:
    """Check every byte, pair, id and count of a shard directory; list what is wrong and exit with 1."""
    from sft_shards.preprocess.directories.signature import signer
    from sft_shards.preprocess.directories.verify import verify as find

    if signature is not None and allowed_signers is None:
        raise UsageError(f"--signature {signature}: by whose key? name those that may sign with --allowed-signers FILE")
    findings, signed = [], ""
    if allowed_signers is not None:
        try:
            signed = f"; signed by {signer(directory, allowed_signers, signature)}"
        except DataError as error:
            findings.append(str(error))
    findings += find(directory, quick=quick)
    if as_json:
        click.echo(json.dumps(findings, ensure_ascii=False))
    else:
        for finding in findings:
            say(finding)
        if not findings:
            say(f"{directory}: nothing wrong{' at a quick look' if quick else ''}{signed}")
    if findings:
        raise SystemExit(1)


@click.command()
@click.argument("directory", type=DIRECTORY)
@option("--output", type=Output(), required=True, metavar="FILE.html", help="Page to write; a file there is replaced.")
@SEQ_LENGTHS
def report(directory: Path, output: Path, seq_lengths: tuple[int, ...]) -> None:
    """Write one page of HTML: what went in, what was left out, lengths, packing, warnings, conversations.

    The page loads nothing and runs no script; it can be opened anywhere and sent to anybody who may see the data.
    """
    from sft_shards.formats.pages.page import check_output, write
    from sft_shards.preprocess.directories.report import report as page
    from sft_shards.preprocess.directories.statistics import SEQ_LENGTHS as USUAL

    check_output(output, directory)
    text = page(directory, seq_lengths=seq_lengths or USUAL)
    try:
        write(output, text)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error}); name another file") from None
    say(f"wrote {output} ({len(text.encode()):,} bytes); it shows texts of the data")


@click.command("list")
@click.argument("directories", type=DIRECTORY, nargs=-1, required=True, metavar="DIR...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_directories(directories: tuple[Path, ...], as_json: bool) -> None:
    """List what shard directories hold, a line per split."""
    from sft_shards.preprocess.directories.compare import summary, table

    found = [summary(directory) for directory in directories]
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else table(found, width=width_of(sys.stdout)))


@click.command()
@click.argument("one", type=DIRECTORY, metavar="A")
@click.argument("other", type=DIRECTORY, metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as a JSON list.")
def diff(one: Path, other: Path, as_json: bool) -> None:
    """List in what two shard directories differ, and exit with 1 if they do."""
    from sft_shards.preprocess.directories.compare import compare

    found = compare(one, other)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        for line in found or [f"{one} and {other} hold the same bytes"]:
            say(line)
    if found:
        raise SystemExit(1)


@click.command()
@click.argument("directories", type=DIRECTORY, nargs=-1, required=True, metavar="DIR...")
@click.option("--output", type=Output(), required=True, help="Shard directory to write.")
@click.option("--overwrite", is_flag=True, help="Replace the shard directory at --output when the new one is complete.")
def merge(directories: tuple[Path, ...], output: Path, overwrite: bool) -> None:
    """Make one shard directory of several without tokenizing again, sorted by path."""
    from sft_shards.preprocess.directories.compare import summary, table
    from sft_shards.preprocess.directories.merge import merge as merge_directories

    merge_directories(directories, output, overwrite=overwrite)
    click.echo(table([summary(output)], width=width_of(sys.stdout)))


COMMANDS = (inspect, rejects, stats, report, verify, list_directories, diff, merge)
