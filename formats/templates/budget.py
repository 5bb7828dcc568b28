"""The budget of one rendering: an amount of work that a template may do, whatever it does it with.

A template is somebody else's program. Each loop iteration, each call and each character that it makes is paid for
before it happens, so that neither time nor memory can run away, in any thread, and with the same result on every
machine. What is counted is an upper bound of the memory in characters, not an exact figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, KeysView, ValuesView
from collections.abc import ItemsView as Items
from typing import Any

import jinja2

UNITS = 256 << 20
"""What one rendering may use at least: 256 Mi characters, or four million loop iterations."""
UNITS_PER_CHARACTER = 64
"""What it may use on top, for each character of the conversation: a long one is more work."""
CHUNK = 4 << 20
"""Units between two looks at the clock."""
STEP, OBJECT, SLOT = 64, 64, 8
"""Units of a loop iteration or call, of a container, and of one place in it."""
SCALARS = frozenset({str, int, bool, float, type(None)})
"""Types of which most values are, and which hold no others."""
CONTAINERS = (list, tuple, dict, Items, KeysView, ValuesView)


class Exhausted(jinja2.exceptions.SecurityError):
    """The template did more than its budget allows."""


class Budget:
    """Counts the work of one template.

    Attributes:
        left: units until the next look at the clock and the reserve; code that runs often subtracts from it directly,
            and calls `refill` when it falls below 0.
    """

    def __init__(self) -> None:
        self.left = 0
        self._reserve = UNITS
        self._deadline = float("inf")
        self._input: Callable[[], int] | None = None

    def start(self, seconds: float = float("inf"), input_characters: Callable[[], int] | None = None) -> None:
        """Begin a rendering.

        Args:
            seconds: after which it is stopped.
            input_characters: gives the size of the conversation; called only where the basic amount is used up.
        """
        self.left, self._reserve = 0, UNITS
        self._deadline = time.monotonic() + seconds
        self._input = input_characters

    def spend(self, units: int) -> None:
        """Pay for work that is about to be done.

        Raises:
            Exhausted: there is not as much left.
        """
        self.left -= units
        if self.left < 0:
            self.refill()

    def refill(self) -> None:
        """Take from the reserve what was overspent.

        Raises:
            Exhausted: the reserve is used up.
            TimeoutError: the time is over.
        """
        if time.monotonic() > self._deadline:
            raise TimeoutError
        needed = CHUNK - self.left
        if needed - CHUNK > self._reserve and self._input is not None:
            self._reserve += UNITS_PER_CHARACTER * self._input()
            self._input = None
        if needed - CHUNK > self._reserve:
            raise Exhausted("the template makes too much out of this conversation (see docs/SECURITY.md)")
        taken = min(needed, self._reserve)
        self._reserve -= taken
        self.left += taken

    def weigh(self, value: Any) -> int:
        """Pay for a walk through a value, and return its size in units; what stands in it twice counts twice.

        A list that holds another one twice, which holds another one twice, is small and prints without end. So this is
        called before anything prints, compares or hashes a container.
        """
        total, stack = 0, [value]
        while stack:
            value = stack.pop()
            if isinstance(value, str):
                units = str.__len__(value)
            elif isinstance(value, CONTAINERS):
                units = OBJECT + SLOT * len(value)
                self.spend(units)
                total += units
                if isinstance(value, dict):
                    stack.extend(value.keys())
                    stack.extend(value.values())
                else:
                    stack.extend(value)
                continue
            elif type(value) is range:
                units = OBJECT
            else:
                units = SLOT
            self.spend(units)
            total += units
        return total


def characters(value: Any) -> int:
    """Return about how many characters a JSON-like value has, keys and punctuation included."""
    total, stack = 0, [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            total += SLOT * len(value)
            stack.extend(value.keys())
            stack.extend(value.values())
        elif isinstance(value, (list, tuple)):
            total += SLOT * len(value)
            stack.extend(value)
    return total
