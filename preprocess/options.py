"""The options that decide about a job, for the commands that make a plan, and the YAML file that may hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sft_shards.formats.errors import UsageError, nearest

DIRECTORY = click.Path(path_type=Path)
FRACTION = click.FloatRange(0, 1, max_open=True)


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


JOB = (
    click.argument("inputs", nargs=-1, metavar="INPUT..."),
    click.option("--output", type=DIRECTORY, help="The shard directory to write."),
    click.option("--tokenizer", help="A tokenizer folder, or a name on the Hub."),
    click.option("--format", "format", default="auto", show_default=True, help="Record format; see 'formats'."),
    click.option("--template", default="auto", show_default=True, help="auto, tokenizer, or a name; see 'formats'."),
    click.option(
        "--train-on", default="all", show_default=True, help="all or last assistant turns, by weight, or everything."
    ),
    click.option(
        "--train-reasoning/--no-train-reasoning", default=True, help="Whether <think> … </think> carries loss."
    ),
    click.option("--train-tool-calls/--no-train-tool-calls", default=True, help="Whether tool calls carry loss."),
    click.option(
        "--straddle", default="train", show_default=True, help="train, skip or split a token across a boundary."
    ),
    click.option("--allow-control-tokens", is_flag=True, help="Let control tokens typed in a text be control tokens."),
    click.option("--max-length", type=int, help="Tokens that a sequence may have; all lengths are kept without."),
    click.option("--overlong", default="drop", show_default=True, help="drop, truncate, turns, tail or error."),
    click.option("--valid-fraction", type=FRACTION, default=0.0, help="Share for the validation split, by content."),
    click.option("--test-fraction", type=FRACTION, default=0.0, help="Share for the test split, by content."),
    click.option("--field", multiple=True, callback=_pairs("--field"), metavar="FIELD=COLUMN", help="Name a column."),
    click.option("--map-role", multiple=True, callback=_pairs("--map-role"), metavar="NAME=ROLE", help="Name a role."),
    click.option(
        "--shard-tokens", type=int, default=1 << 24, show_default=True, help="Tokens a shard should hold, about."
    ),
    click.option("--dedup", is_flag=True, help="Leave out all but the first of equal conversations."),
    click.option(
        "--tokenizer-engine", default="auto", show_default=True, help="auto, fastokens or hf; the ids are the same."
    ),
    click.option(
        "--verify-every",
        type=int,
        default=10_000,
        show_default=True,
        help="One record in so many is done again the careful way.",
    ),
    click.option("--trust-remote-code", is_flag=True, help="Run Python code that the tokenizer brings."),
    click.option("--overwrite", is_flag=True, help="Remove the shard directory at --output first."),
    click.option(
        "--extend", "extend", type=DIRECTORY, metavar="DIR", help="Take over what is the same in this shard directory."
    ),
    click.option("--config", "config_file", type=DIRECTORY, help="YAML with any of these options; the call wins."),
)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a job."""
    for option in reversed(JOB):
        command = option(command)
    return command


def resolved(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options with those of the YAML file put in where the call is silent.

    Raises:
        UsageError: a file that cannot be used, or no --output or --tokenizer.
    """
    options = _with_file(context, options)
    for needed in ("output", "tokenizer"):
        if not options[needed]:
            raise UsageError(f"no --{needed}; give it in the call or in --config")
    for name in ("output", "extend"):
        options[name] = None if options[name] is None else Path(options[name])
    return options


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


def check_limit_text(limit: str | None) -> None:
    """Refuse a `--max-rejects` that is neither a number nor a share."""
    if limit is None:
        return
    try:
        float(str(limit)[:-1]) if str(limit).endswith("%") else int(limit)
    except ValueError:
        raise UsageError(f"--max-rejects {limit}: must be a number such as 100, or a share such as 1%") from None
