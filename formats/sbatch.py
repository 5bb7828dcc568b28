"""Slurm, for both commands: the site's own options, the head of a batch script, and calls of its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from sft_shards.formats.errors import UsageError
from sft_shards.formats.scripts import checked

KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Names of sbatch's options."""


def site_options(values: Sequence[str]) -> dict[str, str]:
    """Read the values of `--slurm-option`: `KEY=VALUE`, or KEY alone for a flag, whose value is "".

    Raises:
        UsageError: a value has another form, or holds a control character.
    """
    options = {}
    for value in values:
        key, _, text = checked(value, "--slurm-option").lstrip("-").partition("=")
        if not KEY.fullmatch(key):
            raise UsageError(f"--slurm-option {value}: must have the form KEY=VALUE, or KEY")
        options[key] = text
    return options


def head(options: Mapping[str, str]) -> list[str]:
    """Give the first lines of a batch script; an option whose value is empty is a flag.

    Raises:
        UsageError: a value holds a control character.
    """
    lines = []
    for key, value in options.items():
        text = shlex.quote(checked(value, f"--{key} of the batch script"))
        lines.append(f"#SBATCH --{key}={text}" if value else f"#SBATCH --{key}")
    return ["#!/bin/bash", *lines]


def call(caller: str, *command: str) -> str:
    """Call one of Slurm's commands, and return what it prints.

    Args:
        caller: the option that asked for it, for messages.

    Raises:
        UsageError: there is no Slurm here, or it refuses.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise UsageError(
            f"{caller}: no {command[0]} on this machine; call it where Slurm's commands are, or print the script by "
            "--dry-run"
        ) from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[0]
        raise UsageError(f"{caller}: {command[0]} refused ({reason}); see --slurm-option") from None


def submit(caller: str, *arguments: str) -> str:
    """Call sbatch, and return the id of the job. Raises what `call` raises."""
    return call(caller, "sbatch", "--parsable", *arguments).strip().split(";")[0]
