"""Variables that the workers find in their environment: each with its reason, and never instead of the user's own.

    variables = plan({"HSA_ENABLE_SDMA": ("1", "copies run beside the kernels")}, os.environ)
    apply(variables, os.environ)
    print(*(variable.shell() for variable in variables), sep="\\n")      # what `sft-train --dry-run` shows

What AMD's GPUs want stands in `trainer.launch.amd`, what the CPU wants in `trainer.launch.cpu`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

Wanted = Mapping[str, tuple[str | None, str]]
"""By name: the value, or None for a variable that must not be set; and why."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable, as it was found and as it is wanted."""

    name: str
    value: str | None
    """What is wanted; None: that it is not set."""
    reason: str
    yours: str | None
    """What the user has set; a wanted value leaves it alone."""

    def shell(self) -> str:
        """The line of a shell script that does what `apply` does."""
        if self.value is None:
            return f"unset {self.name}  # {self.reason}"
        if self.yours is not None:
            return f"# {self.name}={shlex.quote(self.yours)}  (yours, kept; else {self.value}: {self.reason})"
        return f"export {self.name}={shlex.quote(self.value)}  # {self.reason}"


def plan(wanted: Wanted, environment: Mapping[str, str]) -> tuple[Variable, ...]:
    """What would be done to `environment`; a variable that is not to be set and is not set is nothing to do."""
    return tuple(
        Variable(name=name, value=value, reason=reason, yours=environment.get(name))
        for name, (value, reason) in wanted.items()
        if value is not None or name in environment
    )


def apply(variables: Iterable[Variable], environment: MutableMapping[str, str]) -> None:
    """Set what the user has not set, and unset what must not be set."""
    for variable in variables:
        if variable.value is None:
            environment.pop(variable.name, None)
        else:
            environment.setdefault(variable.name, variable.value)
