"""The commands of `sft-preprocess` on finished shard directories, and the list of formats."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.terminal import coloured, say, width_of
from sft_shards.preprocess.options import DIRECTORY, JsonText, Output, Whole, arguments, option


@click.command()
@click.argument("directory", type=DIRECTORY)
@option("--split", default="train", help="Split to look into.")
@option("--row", type=int, default=0, default_words="0", help="Number of the sequence, from 0.")
@option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Whether to use colours.")
@click.option("--json", "as_json", is_flag=True, help="Print ids, mask and text as JSON.")
def inspect(directory: Path, split: str, row: int, color: str, as_json: bool) -> None:
    """Show one sequence, with what carries loss marked."""
    from sft_shards.preprocess.directories.show import show

    colour = color == "always" or (color == "auto" and coloured(sys.stdout))
    try:
        text = show(directory, split, row, colour=colour, as_json=as_json)
    except IndexError as error:
        raise UsageError(f"{directory}: {error}") from None
    click.echo(text, color=colour)


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
@click.argument("data", nargs=-1, metavar="[DATA]...")
@option(
    "--try-template",
    metavar="FILE",
    default_words="none is tried",
    help="Say what would be exact, rewritten or refused of DATA under this template: a file or a name.",
)
@option(
    "--tokenizer", metavar="NAME_OR_DIR", help="with --try-template: folder of a tokenizer, or its name on the Hub."
)
@option(
    "--template-arg",
    multiple=True,
    type=JsonText(),
    callback=arguments,
    metavar="NAME=JSON",
    help="with --try-template: give the template an argument; may be repeated.",
)
@option("--format", "form", default="auto", help="with --try-template: record format of DATA.")
@option("--records", type=Whole(1), default=1000, help="with --try-template: how many records of each file are tried.")
@click.option("--json", "as_json", is_flag=True, help="Print the names, or what was found, as JSON.")
def formats(
    data: tuple[str, ...],
    try_template: str | None,
    tokenizer: str | None,
    template_arg: dict[str, object],
    form: str,
    records: int,
    as_json: bool,
) -> None:
    """List the record formats and templates that are known, or try a template on DATA."""
    if try_template is not None:
        _try_template(data, try_template, tokenizer, template_arg, form, records, as_json)
    elif data or tokenizer or template_arg:
        raise UsageError("formats: DATA, --tokenizer and --template-arg are for --try-template FILE; add it")
    else:
        _list_formats(as_json)


def _try_template(
    data: tuple[str, ...],
    template: str,
    tokenizer: str | None,
    template_arg: dict[str, object],
    form: str,
    records: int,
    as_json: bool,
) -> None:
    from sft_shards.preprocess.config import JobConfig
    from sft_shards.preprocess.directories import template_trial

    if not tokenizer:
        raise UsageError("--try-template: no --tokenizer, whose control tokens and stop tokens a template needs")
    config = JobConfig(inputs=data, tokenizer=tokenizer, template=template, template_arg=template_arg, format=form)
    trial = template_trial.try_template(config, records)
    if as_json:
        click.echo(json.dumps(asdict(trial), ensure_ascii=False))
        return
    for line in template_trial.lines(trial):
        click.echo(line)


def _list_formats(as_json: bool) -> None:
    from sft_shards.formats.records import formats as known
    from sft_shards.formats.templates import sources

    records = {name: form.fields for name, form in known().items()}
    if as_json:
        click.echo(
            json.dumps(
                {"records": {name: list(fields) for name, fields in records.items()}, "templates": list(sources())}
            )
        )
        return
    for name, fields in records.items():
        say(f"records   {name:12} fields: {', '.join(fields)}")
    say("template  tokenizer    the tokenizer's own chat template")
    for name in sources():
        say(f"template  {name}")


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


COMMANDS = (inspect, verify, formats, list_directories, diff, merge)
