"""Write docs/commands.md: every command with its options, as the code declares them.

    make reference          # or: python docs/hooks/commands.py

`tests/test_command_reference.py` fails where the file is not what this gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from sft_shards.preprocess.cli import cli as sft_preprocess
from sft_shards.trainer.cli import cli as sft_train

FILE = Path(__file__).parents[1] / "commands.md"
HEAD = """\
# Which commands and options are there?

This page is made from the code by `make reference`: what `--help` prints, for every command. An option of
`sft-preprocess run` or `sft-train` may also stand in the YAML file of `--config`, with `_` or `-` in its name and
without the two dashes in front.
"""


def reference() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *commands("sft-preprocess", sft_preprocess), *commands("sft-train", sft_train)])


def commands(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    """Yield the lines of a command and of those below it.

    Args:
        parent: context of the command above, whose settings (`-h`) count here; click remembers them in the command.
    """
    with click.Context(command, info_name=name, parent=parent, **command.context_settings) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## {name}\n"
        yield f"    {name} {usage}\n"
        yield f"{_escaped(paragraphs(command.help or ''))}\n"
        rows = [
            parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
        ]
        if rows:
            yield "| option | meaning |\n|---|---|"
            yield from (f"| {_names(one, context)} | {_escaped(_meaning(one))} |" for one in rows)
            yield ""
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from commands(f"{name} {below}", command.commands[below], context)


def paragraphs(text: str) -> str:
    """Return a help text; what click is told not to wrap becomes a block of code."""
    out = []
    for part in inspect.cleandoc(text).split("\n\n") if text else []:
        out.append(part.replace("\b\n", "```\n") + "\n```" if part.startswith("\b\n") else " ".join(part.split()))
    return "\n\n".join(out)


def _names(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in option.secondary_opts)
    if option.is_flag or option.count:
        return names
    kind = option.make_metavar(context).replace("|", "\\|")
    return f"{names} `{kind}`"


def _meaning(option: click.Option) -> str:
    text = " ".join((option.help or "").split())
    return text + (" Repeatable." if option.multiple and "repeat" not in text else "")


def _escaped(text: str) -> str:
    return text.replace("<|", "&lt;\\|") if "```" not in text else text


if __name__ == "__main__":
    FILE.write_text(reference(), "utf-8")
