"""Options of a job, each declared once: for the command line, for `--config FILE.yaml`, and for `--help`.

A value of the YAML file is converted by the same option that a word of the command line is. What YAML makes of an
unquoted word (a number, a date, a yes) is taken where it can mean only one thing, and refused where a text is expected.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sft_shards.formats.errors import UsageError, nearest
from sft_shards.formats.template_arguments import parse_arguments
from sft_shards.formats.terminal import coloured
from sft_shards.preprocess.source_options import SourceOptions, parse_sources

if TYPE_CHECKING:
    from sft_shards.preprocess.config import JobConfig

DIRECTORY = click.Path(path_type=Path)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NOT_IN_CONFIG = ("output", "overwrite", "extend", "no_cache", "config_file")
"""Options of a job that decide nothing about its bytes."""


class Option(click.Option):
    """An option whose help ends with what happens if it is not given: "(default: …)".

    Args:
        default_words: how the help names a default that does not speak for itself.
    """

    def __init__(self, *arguments: Any, default_words: str | None = None, **options: Any) -> None:
        default = options.get("default")
        if default_words is None and default not in (None, "", False):
            default_words = str(default)
        if default_words:
            options["help"] += f" (default: {default_words})"
        super().__init__(*arguments, **options)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Nothing: click would repeat the default in brackets."""
        return {}


class Output(click.Path):
    """A folder on a file system of this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of a text that names no object store."""
        text = str(value)
        if ADDRESS.match(text):
            self.fail(f"{text} is an address; name a folder on this machine, and copy it there afterwards", param, ctx)
        if not text:
            self.fail("the name is empty; name a folder", param, ctx)
        return Path(text)


class Limit(click.types.StringParamType):
    """The value of `--max-rejects`."""

    name = "N|F%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the text back if it is a number, or a percentage."""
        text = str(value)
        if not re.fullmatch(r"\d+|\d+(\.\d+)?%", text, re.ASCII):
            raise UsageError(f"--max-rejects {text}: must be a number such as 100, or a share such as 1%")
        return text


class JsonText(click.types.StringParamType):
    """A name with a JSON value, `NAME=JSON`."""


class SourceText(click.types.StringParamType):
    """An input with options of its own, as a JSON object."""


class Number(click.FloatRange):
    """A float in a range; "nan" is in none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a text, and see that it is in the range."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("nan is no number", param, ctx)
        return number


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "N"

    @property
    def words(self) -> str:
        """The range in words."""
        return f"a whole number of at least {self.min}" + (f" and at most {self.max}" if self.max is not None else "")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert a text, and see that it is in the range."""
        try:
            number: int = super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value} is not {self.words}", param, ctx)
        return number


FRACTION = Number(0, 1, max_open=True)
SECONDS = Number(0)


def pairs(context: click.Context, parameter: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    """Read `NAME=NAME`, given any number of times."""
    out = {}
    for value in values:
        left, sign, right = value.partition("=")
        if not sign or not left or not right:
            raise UsageError(f"{parameter.opts[0]} {value}: must have the form NAME=NAME")
        out[left] = right
    return out


def arguments(context: click.Context, parameter: click.Parameter, values: Iterable[str]) -> dict[str, Any]:
    """Read `NAME=JSON`, given any number of times."""
    return parse_arguments(values, parameter.opts[0])


def sources(context: click.Context, parameter: click.Parameter, values: Iterable[str]) -> tuple[SourceOptions, ...]:
    """Read JSON objects, each an input with options of its own."""
    return parse_sources(values)


def option(*names: str, **settings: Any) -> Callable[..., Any]:
    """Declare an option in the form of `Option`."""
    return click.option(*names, cls=Option, **settings)


COLOR = option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Whether to use colours."
)


def wants_colour(color: str) -> bool:
    """Whether standard output gets colours, by the value of `--color`."""
    return color == "always" or (color == "auto" and coloured(sys.stdout))


JOB = (
    click.argument("inputs", nargs=-1, metavar="INPUT..."),
    option(
        "--source",
        "--sources",
        "sources",
        multiple=True,
        type=SourceText(),
        callback=sources,
        metavar="JSON",
        help='An input with options of its own: {"path": …, "format": …, "field": {…}, "map_role": {…}, '
        '"template_arg": {…}, "weight": N}; may be repeated, in place of INPUT.',
    ),
    option("--output", type=Output(), help="Shard directory to write."),
    option("--tokenizer", metavar="NAME_OR_DIR", help="Folder of a tokenizer, or its name on the Hub."),
    option("--format", "format", default="auto", help="Record format, see 'sft-preprocess formats'."),
    option("--template", default="auto", help="Chat template: auto, tokenizer, a name (see 'formats'), or FILE.jinja."),
    option(
        "--template-arg",
        multiple=True,
        type=JsonText(),
        callback=arguments,
        metavar="NAME=JSON",
        help="Give the template an argument, such as enable_thinking=false; may be repeated.",
    ),
    option("--train-on", default="all", help="What carries loss: all, last, last-run, weight or everything."),
    option(
        "--train-reasoning/--no-train-reasoning",
        default=True,
        default_words="it does",
        help="Whether reasoning carries loss.",
    ),
    option(
        "--train-tool-calls/--no-train-tool-calls",
        default=True,
        default_words="they do",
        help="Whether tool calls carry loss.",
    ),
    option(
        "--rewritten-turns",
        default="auto",
        help="Turns that the template writes otherwise once others follow (Qwen3 drops their reasoning): auto, skip, "
        "unroll (a sequence for each history), train or refuse.",
    ),
    option(
        "--straddle",
        default="train",
        help="A token that begins before trained text and ends inside it: train, skip or split it.",
    ),
    option(
        "--allow-control-tokens",
        is_flag=True,
        default_words="they stay text",
        help="Let control tokens that are typed in a text be control tokens.",
    ),
    option("--max-length", type=Whole(2, 2**31 - 1), default_words="any length", help="Most tokens of a sequence."),
    option("--overlong", default="drop", help="What is done with longer ones: drop, truncate, turns, tail or error."),
    option(
        "--valid-fraction",
        type=FRACTION,
        default=0.0,
        default_words="none",
        help="Share of conversations for validation.",
    ),
    option("--test-fraction", type=FRACTION, default=0.0, default_words="none", help="Share for tests."),
    option(
        "--field",
        multiple=True,
        callback=pairs,
        metavar="FIELD=COLUMN",
        help="Name a column; may be repeated.",
    ),
    option(
        "--map-role",
        multiple=True,
        callback=pairs,
        metavar="NAME=ROLE",
        help="Name a role; may be repeated.",
    ),
    option(
        "--max-record-bytes",
        type=Whole(1024, 1 << 30),
        default=4 << 20,
        metavar="N",
        help="Leave out records of more bytes; a worker needs a multiple of this as memory.",
    ),
    option("--shard-tokens", type=Whole(1), default=1 << 24, help="Tokens that a shard holds, roughly."),
    option("--dedup", is_flag=True, help="Leave out all but the first of equal conversations."),
    option("--tokenizer-engine", default="auto", help="What gives the ids: auto, fastokens or hf, all the same ids."),
    option(
        "--verify-every",
        type=Whole(0, 2**63 - 1),
        default=10_000,
        help="One record in so many, and some of each kind, are also done by the reference path, and compared.",
    ),
    option(
        "--revision",
        metavar="COMMIT",
        default_words="the newest",
        help="Commit, tag or branch of a tokenizer from the Hub; the manifest names the commit.",
    ),
    option(
        "--trust-remote-code",
        is_flag=True,
        help="Run Python code that the tokenizer brings; never taken from a YAML file.",
    ),
    option("--overwrite", is_flag=True, help="Replace the shard directory at --output when the new one is complete."),
    option(
        "--no-cache",
        is_flag=True,
        help="Keep nothing of the tokenizer in the cache folder ($SFT_SHARDS_CACHE or ~/.cache/sft-shards), and take "
        "nothing from there.",
    ),
    option(
        "--extend",
        "extend",
        type=DIRECTORY,
        metavar="DIR",
        help="Take over shards of DIR that would come out the same.",
    ),
    option(
        "--config",
        "config_file",
        type=DIRECTORY,
        metavar="FILE",
        help="YAML with any of these; the command line wins.",
    ),
)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a job."""
    for declared in reversed(JOB):
        command = declared(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a call, those of its YAML file included."""

    values: Mapping[str, Any]
    """By parameter name."""
    given: frozenset[str]
    """Names of those that the call or the file gives."""
    in_file: frozenset[str]
    """Names of those that the file decides."""
    file: Path | None

    @property
    def output(self) -> Path:
        """The value of `--output`."""
        output: Path = self.values["output"]
        return output

    def config(self) -> JobConfig:
        """Make the configuration of the job.

        Raises:
            UsageError: a value is unknown or contradicts another.
        """
        from sft_shards.preprocess.config import JobConfig

        names = set(JobConfig.__dataclass_fields__)
        values = {name: value for name, value in self.values.items() if name in names}
        if self.values["sources"] and not self.values["inputs"]:
            values["inputs"] = tuple(one.path for one in self.values["sources"])
        try:
            return JobConfig(**values)
        except UsageError as error:
            name = re.split(r"[ =:]", str(error).removeprefix("--"))[0].replace("-", "_")
            if name in self.in_file:
                raise UsageError(f"{self.file}: {error}") from None
            raise

    def plan_arguments(self, context: click.Context) -> tuple[str, ...]:
        """Give the arguments that make `sft-preprocess plan` plan the same job, without `--output`."""
        out: list[str] = []
        for parameter in context.command.params:
            name, value = str(parameter.name), self.values.get(str(parameter.name))
            if name not in self.given or name in ("output", "config_file") or name not in _names_of_a_job():
                continue
            if isinstance(parameter, click.Argument):
                out = [*(value or ()), *out]
            elif isinstance(parameter, click.Option) and parameter.is_flag:
                out += [parameter.opts[0]] if value else parameter.secondary_opts[:1]
            elif isinstance(value, dict):
                as_json = isinstance(parameter.type, JsonText)
                words = [f"{left}={json.dumps(right) if as_json else right}" for left, right in value.items()]
                out += [word for pair in words for word in (parameter.opts[0], pair)]
            elif isinstance(parameter.type, SourceText):
                texts = (json.dumps(one.as_dict()) for one in value or ())
                out += [word for text in texts for word in (parameter.opts[0], text)]
            elif value is not None:
                out += [parameter.opts[0], str(value)]
        return tuple(out)


def _names_of_a_job() -> set[str]:
    @job_options
    def command(**_options: Any) -> None: ...

    return {str(parameter.name) for parameter in getattr(command, "__click_params__")}  # noqa: B009


def resolve(
    context: click.Context, options: dict[str, Any], *, needed: Sequence[str] = ("output", "tokenizer")
) -> Settings:
    """Put the options of the YAML file where the call is silent.

    Args:
        needed: options that the call or the file must give.

    Raises:
        UsageError: the file cannot be used, or one that is needed is given in neither.
    """
    values = dict(options)
    path: Path | None = values.pop("config_file")
    given = {name for name in values if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    in_file = {}
    if path is not None:
        in_file = {name: value for name, value in _read(path, context).items() if name not in given}
    values |= in_file
    for name in needed:
        if not values[name]:
            raise UsageError(f"no --{name}; give it in the call or in --config")
    return Settings(values=values, given=frozenset(given | set(in_file)), in_file=frozenset(in_file), file=path)


def _read(path: Path, context: click.Context) -> dict[str, Any]:
    """Read the YAML file, and convert each value as its option does; a null is as good as no key."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or number that there is not
        raise UsageError(f"{path}: not YAML ({(str(error).splitlines() or ['nested too deeply'])[0]})") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: must be a mapping of options to values")
    parameters = {str(one.name): one for one in context.command.params if one.name not in ("config_file", "help")}
    names = {one.opts[-1].lstrip("-").replace("-", "_"): name for name, one in parameters.items()}
    out = {}
    for key, value in raw.items():
        word = str(key).replace("-", "_")
        if word not in names:
            raise UsageError(f"{path}: unknown key {key!r}; {nearest(word, names)}")
        if word == "trust_remote_code":
            raise UsageError(
                f"{path}: {key!r} lets a tokenizer's own code run, and this file may be somebody else's; leave it out, "
                "and give --trust-remote-code in the call"
            )
        parameter = parameters[names[word]]
        if value is not None:
            try:
                out[names[word]] = parameter.process_value(context, _words(parameter, value))
            except (_UnfitError, UsageError, click.BadParameter) as error:
                if isinstance(error, UsageError) and isinstance(parameter.type, (JsonText, SourceText)):
                    raise UsageError(f"{path}: {error}") from None
                raise UsageError(f"{path}: {word} is {_short(value)}; expected {_expected(parameter, value)}") from None
    return out


class _UnfitError(ValueError):
    """A YAML value that no word of the command line could be."""


def _words(parameter: click.Parameter, value: Any) -> Any:
    """Spell a YAML value as the words of a command line."""
    if isinstance(parameter, click.Argument):
        return [_text(one) for one in (value if isinstance(value, list) else [value])]
    if isinstance(parameter.type, SourceText):
        return [_json({"path": one} if isinstance(one, str) else one) for one in _listed(value)]
    if isinstance(parameter.type, JsonText) and isinstance(value, dict):
        return [f"{_name(name)}={_json(one)}" for name, one in value.items() if one is not None]
    if _is_multiple(parameter):
        if isinstance(value, dict):
            return [f"{_name(left)}={'' if right is None else _scalar(right)}" for left, right in value.items()]
        return [_text(one) for one in (value if isinstance(value, list) else [value])]
    if _is_text(parameter):
        return _text(value)
    return _scalar(value)


def _is_multiple(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.multiple


def _is_text(parameter: click.Parameter) -> bool:
    return isinstance(parameter.type, (click.types.StringParamType, click.Path)) and not isinstance(
        parameter.type, Limit
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _UnfitError
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name(value: Any) -> str:
    if "=" in _text(value):
        raise _UnfitError
    return str(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise _UnfitError from None


def _scalar(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or "\0" in (text := str(value)):
        raise _UnfitError
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _expected(parameter: click.Parameter, value: Any) -> str:
    """Say what values an option takes."""
    kind = parameter.type
    if isinstance(parameter, click.Argument):
        return "a text, or a list of texts"
    if isinstance(kind, click.Choice):
        choices: Sequence[str] = list(map(str, kind.choices))
        return f"one of {', '.join(choices)}" + (f"; {nearest(value, choices)}" if isinstance(value, str) else "")
    if isinstance(kind, click.types.BoolParamType):
        return "true or false"
    if isinstance(kind, Whole):
        return kind.words
    if isinstance(kind, click.FloatRange):
        return f"a number from {kind.min}" + (f" to below {kind.max}" if kind.max is not None else " on")
    if isinstance(kind, Limit):
        return "a number such as 100, or a share such as 1%"
    if _is_multiple(parameter):
        return f"a mapping, or a list of {parameter.metavar}"
    if isinstance(kind, Output):
        return "a folder on this machine, as a text"
    return "a text; write it in quotes"
