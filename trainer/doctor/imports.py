"""Find out what can be imported, in a process of its own: `python -m sft_shards.trainer.doctor.imports FILE`.

A broken ROCm installation aborts or hangs on import instead of raising, and Megatron's import is slow and noisy. So a
child process imports one subject after the other and appends a line for each to FILE, a JSON list of the subject and
the fields of `Imported`. If the child dies, the first subject without a line is to blame, and another child continues
with the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_shards.trainer.doctor.subjects import NEEDS, SUBJECTS, one_line

SECONDS = 180.0
"""Time limit of a child; imports from a cold network file system are slow."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of importing one subject."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """What its function in `sft_shards.trainer.doctor.subjects` returned, documented there; empty after a failure."""
    failure: str = ""
    """Why it failed, in one line; "" if it worked."""
    missing: bool = False
    """Whether it failed because it is not installed."""
    died: bool = False
    """Whether it ended the process or gave no answer, which no caller can catch."""


def gather(seconds: float = SECONDS, environ: Mapping[str, str] | None = None) -> dict[str, Imported]:
    """Return the result of every subject; if no process can be started, each has failed with that reason.

    Args:
        seconds: time limit of a child.
        environ: environment of the children; None: that of this process.
    """
    try:
        return _gather(seconds, environ)
    except OSError as error:  # no memory for a process, no folder for temporary files
        return dict.fromkeys(SUBJECTS, Imported(failure=one_line(error)))


def _gather(seconds: float, environ: Mapping[str, str] | None) -> dict[str, Imported]:
    with tempfile.TemporaryDirectory(prefix="sft-train-doctor-") as folder:
        answers = Path(folder, "answers")
        answers.touch()
        while True:
            end = _child(answers, seconds, environ)
            found = _read(answers)
            rest = [name for name in SUBJECTS if name not in found]
            if not rest:
                return {name: found[name] for name in SUBJECTS}
            _write(answers, rest[0], failure=end, died=True)


def _child(answers: Path, seconds: float, environ: Mapping[str, str] | None) -> str:
    """Run a child until it ends or its time is over; return how it ended, with its last line of output."""
    command = [sys.executable, "-W", "ignore", "-m", "sft_shards.trainer.doctor.imports", str(answers)]
    noise = answers.with_name("noise")
    with open(noise, "wb") as file:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=dict(os.environ if environ is None else environ),
        )
        try:
            end = _ended(child.wait(seconds))
        except subprocess.TimeoutExpired:
            end = f"no answer within {seconds:g} s"
            _kill(child)
        except BaseException:
            _kill(child)
            raise
    lines = noise.read_text("utf-8", "replace").strip().splitlines()
    return f"{end} ({' '.join(lines[-1].split())[:160]})" if lines else end


def _read(answers: Path) -> dict[str, Imported]:
    lines = answers.read_text("utf-8").splitlines()
    return {name: Imported(**fields) for name, fields in map(json.loads, lines)}


def _write(answers: Path, subject: str, **fields: Any) -> None:
    with open(answers, "a", encoding="utf-8") as file:
        file.write(json.dumps([subject, fields]) + "\n")


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs inside a driver and cannot be ended
        child.wait(5)


def _ended(code: int) -> str:
    if code >= 0:
        return f"the import ended the process with exit status {code}"
    try:
        return f"the import ended in {signal.Signals(-code).name}"
    except ValueError:
        return f"the import ended in signal {-code}"


def main(answers: Path) -> int:
    """Import every subject that has no line in `answers` yet, and append a line after each."""
    for name, look in SUBJECTS.items():
        found = _read(answers)
        need = NEEDS.get(name, "")
        if name in found:
            continue
        if need and found[need].failure:
            _write(answers, name, failure=f"not tried, because {need} cannot be imported")
            continue
        try:
            _write(answers, name, facts=look())
        except ModuleNotFoundError as error:
            _write(answers, name, failure=one_line(error), missing=_is_subject(name, error.name or ""))
        except (Exception, SystemExit) as error:  # whatever a broken installation raises
            _write(answers, name, failure=one_line(error))
    return 0


def _is_subject(subject: str, module: str) -> bool:
    """Return whether the missing module is the subject itself, and not something that it imports."""
    own = "megatron.core.datasets.helpers_cpp" if subject == "helpers" else subject
    return module == own or module.startswith(f"{own}.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
