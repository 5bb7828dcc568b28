"""Megatron's flags of a run, put together from several sources; a later source wins over an earlier one.

    our defaults < YAML file < after `--` < what the device needs

The model shape (`sft_shards.trainer.model.hf_config`) is not overridden: a flag that contradicts it is an error. Names
are checked against the parser of the installed Megatron, so there is no list of flags here.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.model.hf_config import ModelShape
from sft_shards.trainer.yaml_config import OWN

DEFAULTS: dict[str, Any] = {
    "calculate-per-token-loss": True,  # one objective on every layout: the token-weighted mean
    "micro-batch-size": 1,
    "attention-dropout": 0.0,  # current models are fine-tuned without dropout
    "hidden-dropout": 0.0,
    "log-interval": 10,
    "eval-interval": 100,
    "save-interval": 500,  # Megatron divides by it whenever --save is given
    "no-one-logger": True,  # a logger inside NVIDIA
}
"""Values of flags that neither the file nor the command line sets."""


ABOUT = "Megatron's flags: "
"""How a message of the parser begins."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the message alone; Megatron's usage is 800 lines long."""
        raise UsageError(f"{ABOUT}{message}")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of a run, as text and parsed."""

    argv: tuple[str, ...]
    """The command line that Megatron will parse."""
    args: argparse.Namespace
    """`argv` as Megatron's parser reads it, not validated yet."""
    given: frozenset[str]
    """Destinations that the user set, in the file or after `--`."""

    def has(self, destination: str) -> bool:
        """Return whether the installed Megatron has this flag: flags come and go with its versions."""
        return hasattr(self.args, destination)


def resolve(
    parser: argparse.ArgumentParser,
    *,
    config: Mapping[str, Any],
    config_path: str,
    flags: Iterable[str],
    forced: Mapping[str, Any] | None = None,
    shape: ModelShape | None = None,
) -> Flags:
    """Put the flags together and parse them.

    Args:
        parser: Megatron's own.
        config: flags of the YAML file, by name without leading dashes.
        config_path: the file, for messages.
        flags: the words after `--`.
        forced: flags that win over all others; False removes a switch.
        shape: the model shape, if a file says it.

    Raises:
        UsageError: an unknown name (the message names the nearest one), a value that its flag does not take, or one
            that contradicts the model shape.
    """
    actions = parser._option_string_actions
    for name in config:
        if _option_name(actions, name) is None:
            raise UsageError(f"{config_path}: unknown key {name!r}; {_hint(name, actions)}")
    from_file = _file_words(parser, config, config_path)
    after = list(flags)
    for word in after:
        option = word.split("=", 1)[0]
        if option.startswith("--") and option not in actions:
            raise UsageError(f"unknown Megatron flag {option}; {_hint(option, actions, dashes=True)}")
    options = [str(_option_name(actions, name)) for name in config] + [word.split("=", 1)[0] for word in after]
    given = frozenset(actions[option].dest for option in options if option in actions)
    from_model: list[str] = []
    if shape is not None:
        from_model = _shape_words(parser, shape)
        _check_against_shape(parser, shape, from_file, config_path)
        _check_against_shape(parser, shape, after, "after --")
    wanted = {
        name: value
        for name, value in DEFAULTS.items()
        if f"--{name}" in actions and actions[f"--{name}"].dest not in given
    }
    needed = {name: value for name, value in (forced or {}).items() if f"--{name}" in actions}
    argv = as_argv(actions, wanted) + from_model + from_file + after
    argv = [word for word in argv if word not in _switches_off(actions, needed)] + as_argv(actions, needed)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UsageError(f"Megatron's flags: {unknown[0]!r} belongs to no flag; a list goes after its flag's name")
    return Flags(argv=tuple(argv), args=args, given=given)


def _file_words(parser: argparse.ArgumentParser, config: Mapping[str, Any], path: str) -> list[str]:
    """Return the flags of the YAML file as words of a command line; a UsageError about one names the file."""
    try:
        words = as_argv(parser._option_string_actions, config)
        parser.parse_known_args(words)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix(ABOUT)}") from None
    return words


def _shape_words(parser: argparse.ArgumentParser, shape: ModelShape) -> list[str]:
    """Return a model shape as words of a command line; UsageError if this Megatron lacks a flag that it needs."""
    actions = parser._option_string_actions
    for name, value in shape.flags.items():
        if _option_name(actions, name) is None and value not in (None, False):
            raise UsageError(f"{shape.path}: this Megatron has no --{name}, which the model needs; use a later one")
    known = {name: value for name, value in shape.flags.items() if _option_name(actions, name) and value is not None}
    return as_argv(actions, known)


def _check_against_shape(parser: argparse.ArgumentParser, shape: ModelShape, words: Sequence[str], where: str) -> None:
    """Raise UsageError if `words` contradict the model shape; they may repeat it."""
    actions = parser._option_string_actions
    wanted, _ = parser.parse_known_args(_shape_words(parser, shape))
    parsed, _ = parser.parse_known_args(list(words))
    options = {word.split("=", 1)[0] for word in words}
    for name, value in shape.flags.items():
        dest = actions[option].dest if (option := _option_name(actions, name)) else ""
        used = sorted(other for other in options if other in actions and actions[other].dest == dest)
        if used and getattr(parsed, dest) != getattr(wanted, dest):
            theirs = "" if actions[used[0]].nargs == 0 else f" {getattr(parsed, dest)}"
            ours = {None: "is not to be set", False: "is not to be set", True: "must be set"}.get(value, f"is {value}")
            raise UsageError(
                f"{where}: {used[0]}{theirs} contradicts {shape.path}, by which --{name} {ours}; leave it out"
            )


def _switches_off(actions: Mapping[str, argparse.Action], values: Mapping[str, Any]) -> set[str]:
    """Return the words that set a switch for which `values` holds False."""
    return {f"--{name}" for name, value in values.items() if value is False and actions[f"--{name}"].nargs == 0}


def as_argv(actions: Mapping[str, argparse.Action], values: Mapping[str, Any]) -> list[str]:
    """Return a mapping as words of a command line.

    True sets a switch; False leaves it out, or negates it if it has a `--no-` form; a list is several values.
    """
    words: list[str] = []
    for name, value in values.items():
        option = _option_name(actions, name)
        assert option is not None, name
        switch = actions[option].nargs == 0
        if value is True and switch:
            words.append(option)
        elif value is False and switch:
            negated = f"--no-{name}"
            if isinstance(actions[option], argparse.BooleanOptionalAction):
                words.append(negated)
        elif switch:
            raise UsageError(f"{name!r} is a switch and takes true or false, not {value!r}")
        elif isinstance(value, list):
            words += [option, *(str(entry) for entry in value)]
        else:
            words.append(f"{option}={value}")
    return words


def _option_name(actions: Mapping[str, argparse.Action], name: str) -> str | None:
    """Return the option as this parser spells it, with dashes or with underscores; None if it has neither."""
    for option in (f"--{name}", f"--{name.replace('-', '_')}"):
        if option in actions:
            return option
    return None


def _hint(name: str, actions: Mapping[str, argparse.Action], *, dashes: bool = False) -> str:
    known = [option for option in actions if option.startswith("--")]
    if not dashes:
        known = [option[2:] for option in known] + list(OWN)
    elif name[2:] in OWN:
        return f"{name} is an option of sft-train: put it before the --"
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "no flag of this Megatron is like it"
