"""`sft-preprocess`: the commands, their options, and what each says at the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from formats.errors import DataError, UsageError, nearest

FRACTION = click.FloatRange(0, 1, max_open=True)
DIRECTORY = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sft-shards", message="%(package)s %(version)s")
def cli() -> None:
    """Tokenize fine-tuning data once, into Megatron shards that carry their loss mask."""


def _pairs(name: str) -> Any:
    def convert(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
        out = {}
        for value in values:
            left, sign, right = value.partition("=")
            if not sign or not left or not right:
                raise UsageError(f"{name} {value}: must have the form NAME=NAME")
            out[left] = right
        return out

    return convert


@cli.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--output", type=DIRECTORY, help="The shard directory to write.")
@click.option("--tokenizer", help="A tokenizer folder, or a name on the Hub.")
@click.option("--format", "format", default="auto", show_default=True, help="Record format; see 'formats'.")
@click.option("--template", default="auto", show_default=True, help="auto, tokenizer, or a name; see 'formats'.")
@click.option(
    "--train-on", default="all", show_default=True, help="all or last assistant turns, by weight, or everything."
)
@click.option("--train-reasoning/--no-train-reasoning", default=True, help="Whether <think> … </think> carries loss.")
@click.option("--train-tool-calls/--no-train-tool-calls", default=True, help="Whether tool calls carry loss.")
@click.option("--straddle", default="train", show_default=True, help="train, skip or split a token across a boundary.")
@click.option("--allow-control-tokens", is_flag=True, help="Let control tokens typed in a text be control tokens.")
@click.option("--max-length", type=int, help="Tokens that a sequence may have; all lengths are kept without.")
@click.option("--overlong", default="drop", show_default=True, help="drop, truncate, turns, tail or error.")
@click.option("--valid-fraction", type=FRACTION, default=0.0, help="Share for the validation split, by content.")
@click.option("--test-fraction", type=FRACTION, default=0.0, help="Share for the test split, by content.")
@click.option("--field", multiple=True, callback=_pairs("--field"), metavar="FIELD=COLUMN", help="Name a column.")
@click.option("--map-role", multiple=True, callback=_pairs("--map-role"), metavar="NAME=ROLE", help="Name a role.")
@click.option("--workers", type=click.IntRange(1), help="Processes; the CPUs there are without.")
@click.option("--shard-tokens", type=int, default=1 << 24, show_default=True, help="Tokens a shard should hold.")
@click.option("--max-rejects", metavar="N|F%", help="Fail if more records are left out; any number without.")
@click.option("--engine", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that the tokenizer brings.")
@click.option("--overwrite", is_flag=True, help="Remove the shard directory at --output first.")
@click.option("--config", "config_file", type=DIRECTORY, help="YAML with any of these options; the call wins.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Turn INPUT (files, folders, globs) into a shard directory."""
    options = _with_file(context, options)
    for needed in ("output", "tokenizer"):
        if not options[needed]:
            raise UsageError(f"no --{needed}; give it in the call or in --config")
    output, as_json = Path(options.pop("output")), options.pop("as_json")
    workers, overwrite, max_rejects = options.pop("workers"), options.pop("overwrite"), options.pop("max_rejects")
    options.pop("engine")
    _check_limit(max_rejects)
    from preprocess.config import JobConfig
    from preprocess.engines import default_workers
    from preprocess.job import run as run_job

    config = JobConfig(**options)
    plan, manifest = run_job(
        config, output, workers=workers or default_workers(), overwrite=overwrite, max_rejects=max_rejects
    )
    if as_json:
        click.echo(json.dumps(_summary(manifest)))
        return
    for source in plan.sources:
        click.echo(f"{source.path}: {source.format} ({source.kind})", err=True)
    for name, split in manifest.splits.items():
        share = split.trained_tokens / split.tokens
        click.echo(
            f"{name}: {split.sequences:,} sequences, {split.tokens:,} tokens, {split.trained_tokens:,} carry loss "
            f"({share:.1%}), longest {split.longest:,}, {len(split.shards)} shard(s)"
        )
    for reason, count in manifest.counts.rejected.items():
        click.echo(f"left out: {count:,} {reason} (see {output}/rejects.jsonl)")
    click.echo(f"wrote {output} with template {manifest.template['name']}; look at it: sft-preprocess inspect {output}")


def _with_file(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    path = options.pop("config_file")
    if path is None:
        return options
    import yaml

    try:
        raw = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: must be a mapping of options to values")
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in options:
            raise UsageError(f"{path}: unknown key {key!r}; {nearest(name, options)}")
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            continue
        if name == "inputs":
            value = tuple([value] if isinstance(value, str) else value)
        if (
            not isinstance(value, type(options[name]))
            and options[name] is not None
            and not isinstance(options[name], float)
        ):
            raise UsageError(f"{path}: {key} is {value!r}, which is not {type(options[name]).__name__}")
        options[name] = value
    return options


def _check_limit(limit: str | None) -> None:
    if limit is None:
        return
    try:
        float(str(limit)[:-1]) if str(limit).endswith("%") else int(limit)
    except ValueError:
        raise UsageError(f"--max-rejects {limit}: must be a number such as 100, or a share such as 1%") from None


def _summary(manifest: Any) -> dict[str, Any]:
    from dataclasses import asdict

    raw = asdict(manifest)
    for split in raw["splits"].values():
        split["shards"] = len(split["shards"])
    return {key: raw[key] for key in ("counts", "splits", "notes")} | {"template": raw["template"]["name"]}


@cli.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--split", default="train", show_default=True)
@click.option("--row", type=int, default=0, show_default=True, help="Which sequence, counted from 0.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print ids, mask and text as JSON.")
def inspect(directory: Path, split: str, row: int, color: str, as_json: bool) -> None:
    """Show one sequence, and what of it carries loss."""
    from preprocess.inspect import show

    colour = color == "always" or (color == "auto" and sys.stdout.isatty())
    try:
        text = show(directory, split, row, colour=colour, as_json=as_json)
    except IndexError as error:
        raise UsageError(f"{directory}: {error}") from None
    click.echo(text, color=colour)


@cli.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--quick", is_flag=True, help="Check files, sizes, headers and sums only.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
def verify(directory: Path, quick: bool, as_json: bool) -> None:
    """Check every byte, pair, id and count of a shard directory; exit 1 and list what is wrong."""
    from preprocess.verify import verify as find

    findings = find(directory, quick=quick)
    if as_json:
        click.echo(json.dumps(findings, ensure_ascii=False))
    else:
        for finding in findings:
            click.echo(finding)
        if not findings:
            click.echo(f"{directory}: nothing wrong{' at a quick look' if quick else ''}")
    if findings:
        raise SystemExit(1)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the names as JSON.")
def formats(as_json: bool) -> None:
    """List the record formats and templates that are known, those of other packages included."""
    from formats.records import formats as known
    from formats.templates import sources

    records = {name: form.fields for name, form in known().items()}
    if as_json:
        click.echo(
            json.dumps(
                {"records": {name: list(fields) for name, fields in records.items()}, "templates": list(sources())}
            )
        )
        return
    for name, fields in records.items():
        click.echo(f"records   {name:12} fields: {', '.join(fields)}")
    click.echo("template  tokenizer    the tokenizer's own chat template")
    for name in sources():
        click.echo(f"template  {name}")


def main() -> NoReturn:
    """Run the command; errors are one line on standard error, and the exit status says whose they are."""
    try:
        cli(standalone_mode=False)
    except (UsageError, DataError) as error:
        click.echo(f"sft-preprocess: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("sft-preprocess: interrupted; the same command goes on where it stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(0)
