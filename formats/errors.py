"""The errors that a user can cause, one class for each thing that they mean to the process.

A call that is wrong ends with exit status 2 (`UsageError`), a job that ran and met something wrong with the
data or the machine with 1 (`DataError`), and a single record that cannot be used is left out and counted
(`RecordError`). Each message is one line that names the file, the record and the remedy. Anything else that
escapes is a bug and shows as a traceback.

Part of the plugin surface: other packages may import what `__all__` names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DataError", "RecordError", "UsageError", "nearest"]


class UsageError(ValueError):
    """The call is wrong: a file that is not there, an unknown name, options that contradict each other."""

    exit_code = 2


class DataError(ValueError):
    """The call was right and something is wrong with the data, the shards or the machine."""

    exit_code = 1


class RecordError(ValueError):
    """One record cannot be used. `reason` is a fixed word that is counted (see `reasons`), `detail` says what was seen.

    >>> raise RecordError("no_assistant_turn", "roles are user, user")
    Traceback (most recent call last):
    sft_shards.formats.errors.RecordError: no_assistant_turn: roles are user, user
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def with_detail(self, detail: str) -> RecordError:
        """Return an error with the same reason and another detail."""
        return type(self)(self.reason, detail)

    def kept(self) -> RecordError:
        """Drop the traceback and the causes of this error, and return it.

        An error that is kept would keep alive every frame that it came through, and with them their batches.
        """
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters of it, or its type where it says nothing.

    >>> first_line(OSError("No such file\\nand more")), first_line(KeyboardInterrupt())
    ('No such file', 'KeyboardInterrupt')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def nearest(word: str, known: Iterable[str]) -> str:
    """Give a hint for a misspelt name, for the end of a message: the nearest known name, else all of them.

    >>> nearest("alpace", ["alpaca", "chatml"])
    "did you mean 'alpaca'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
