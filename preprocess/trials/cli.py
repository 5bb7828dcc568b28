"""The commands of `sft-preprocess` that look at inputs and write nothing, and the list of formats."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from sft_shards.formats.errors import UsageError
from sft_shards.formats.terminal import say, width_of
from sft_shards.preprocess.inputs import check_inputs
from sft_shards.preprocess.options import COLOR, JOB, JsonText, Whole, arguments, option, pairs, resolve, wants_colour

NOT_HERE = ("output", "overwrite", "extend", "shard_tokens", "dedup", "valid_fraction", "test_fraction", "verify_every")
"""Options of a job that say nothing about one record by itself."""


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="DATA...")
@option("--format", "form", default="auto", help="Record format, see 'sft-preprocess formats'.")
@option("--field", multiple=True, callback=pairs, metavar="FIELD=COLUMN", help="Name a column; may be repeated.")
@option("--map-role", multiple=True, callback=pairs, metavar="NAME=ROLE", help="Name a role; may be repeated.")
@option("--records", type=Whole(0), default=1000, help="Records of each file to look at; 0 for all.")
@option("--max-record-bytes", type=Whole(1024, 1 << 30), default=4 << 20, metavar="N", help="As for run.")
@COLOR
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(
    inputs: tuple[str, ...],
    form: str,
    field: dict[str, str],
    map_role: dict[str, str],
    records: int,
    max_record_bytes: int,
    color: str,
    as_json: bool,
) -> None:
    """Say what files are, what would be left out of them and why, and which options to give. No tokenizer is needed.

    DATA is a file, glob, folder, or OWNER/NAME[:SPLIT] on the Hub. Exit status 1 where a file cannot be used.
    """
    from sft_shards.formats.records import FieldMap
    from sft_shards.preprocess.trials.check import check as look
    from sft_shards.preprocess.trials.check import next_step
    from sft_shards.preprocess.trials.check_report import lines
    from sft_shards.preprocess.trials.flags import as_words

    check_inputs(inputs)
    known = FieldMap(columns=field, roles=map_role)
    files = list(look(inputs, form=form, fields=known, most=records, record_bytes=max_record_bytes))
    step = next_step(inputs, files, given=as_words("" if form == "auto" else form, field, map_role))
    if as_json:
        click.echo(
            json.dumps({"files": [file.as_dict() for file in files], "next": step and asdict(step)}, ensure_ascii=False)
        )
    else:
        colour = wants_colour(color)
        for line in lines(files, colour=colour, width=width_of(sys.stdout)):
            click.echo(line, color=colour)
        if step is not None and step.yaml:
            say("next: put this into sources.yaml")
            for line in step.yaml.splitlines():
                say(line)
        if step is not None:
            say(f"next: {step.command}")
    if not all(file.format for file in files):
        raise SystemExit(1)


@click.command()
@option("-n", "count", type=Whole(1), default=3, help="Records to show, of the inputs in turn.")
@option("--record", type=Whole(0), default=0, default_words="0", help="Number of the first record of each input.")
@click.option("--tokens", is_flag=True, help="Show a line for each token: place, id, + for loss, text.")
@click.option("--full", is_flag=True, help="Show long texts whole.")
@COLOR
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each record.")
@click.pass_context
def preview(context: click.Context, /, **options: Any) -> None:
    """Show records as a job would train them, with what carries loss marked. Nothing is written.

    INPUT is as for run, and so are the options; trained text stands between ⟦ ⟧.
    """
    settings = resolve(context, options, needed=("tokenizer",))
    values = settings.values
    check_inputs(values["inputs"])
    if "-" in values["inputs"]:
        raise UsageError("-: standard input can be read by 'run' and 'plan' only; name a file")
    from sft_shards.formats.templates import is_template_file, read_template
    from sft_shards.preprocess import runtime
    from sft_shards.preprocess.trials import rendered

    config = settings.config()
    if config.trust_remote_code:
        runtime.keep_torch()
    source = read_template(config.template) if is_template_file(config.template) else None
    found = rendered.preview(
        config, source, count=values["count"], first=values["record"], cache=not values["no_cache"]
    )
    if values["as_json"]:
        shown = rendered.dumped(found)
        colour = False
    else:
        colour = wants_colour(values["color"])
        width = width_of(sys.stdout)
        shown = list(rendered.lines(found, colour=colour, tokens=values["tokens"], full=values["full"], width=width))
    for line in shown:
        click.echo(line, color=colour)


def _add_job_options() -> None:
    """Give `preview` the options of a job that say something about one record."""

    def bare(**_options: Any) -> None: ...

    for declare in JOB:
        declare(bare)
    for parameter in getattr(bare, "__click_params__"):  # noqa: B009
        if parameter.name not in NOT_HERE:
            preview.params.insert(len(preview.params) - 6, parameter)


_add_job_options()


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
    from sft_shards.preprocess.trials import template_trial

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


COMMANDS = (check, preview, formats)
