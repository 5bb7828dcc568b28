"""Environment variables of the workers: each with a reason, and never in place of one that the user has set.

    variables = plan({"HSA_ENABLE_SDMA": ("1", "copies run beside the kernels")}, os.environ)
    apply(variables, os.environ)
    print(*(variable.shell() for variable in variables), sep="\\n")      # what `sft-train --dry-run` shows

`sft_shards.trainer.launch.amd` lists the variables for GPUs, `sft_shards.trainer.launch.cpu` those for the CPU.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from sft_shards.formats.scripts import comment

Wanted = Mapping[str, tuple[str | None, str]]
"""For each name the value, or None if the variable must not be set, and the reason."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable: the value that is wanted, and the one that the user has set."""

    name: str
    value: str | None
    """The value that is wanted; None: the variable must not be set."""
    reason: str
    yours: str | None
    """The value that the user has set, which is kept; None: it is not set."""

    def shell(self) -> str:
        """Return the line of a shell script that does the same as `apply`."""
        if self.value is None:
            return f"unset {self.name}  # {self.reason}"
        if self.yours is not None:
            return comment(f"{self.name}={shlex.quote(self.yours)}  (yours, kept; else {self.value}: {self.reason})")
        return f"export {self.name}={shlex.quote(self.value)}  # {self.reason}"


def plan(wanted: Wanted, environment: Mapping[str, str]) -> tuple[Variable, ...]:
    """Return the changes to make to `environment`; a variable that must not be set and is not set needs none."""
    return tuple(
        Variable(name=name, value=value, reason=reason, yours=environment.get(name))
        for name, (value, reason) in wanted.items()
        if value is not None or name in environment
    )


def apply(variables: Iterable[Variable], environment: MutableMapping[str, str]) -> None:
    """Set the variables that the user has not set, and unset those that must not be set."""
    for variable in variables:
        if variable.value is None:
            environment.pop(variable.name, None)
        else:
            environment.setdefault(variable.name, variable.value)
