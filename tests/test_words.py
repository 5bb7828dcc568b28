"""`make words` finds the expressions of .codespell.txt, and says what is said instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
ENTRIES = dict(line.split("->") for line in (ROOT / ".codespell.txt").read_text("utf-8").splitlines())


def words(file: Path) -> tuple[int, str]:
    """Exit status and output of the check on one file, with the programs of this environment."""
    call = ["make", "--silent", "words", "READY=", f"BIN={Path(sys.executable).parent}", f"FILES={file}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not those of make check
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False, env=own)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["planted.py", "planted.md"])
def test_every_expression_is_found(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("".join(f"# before {found.capitalize()} after\n" for found in ENTRIES), "utf-8")
    status, output = words(file)
    assert status != 0
    for number, (found, instead) in enumerate(ENTRIES.items(), 1):
        line = next((line for line in output.splitlines() if f"{name}:{number}: " in line), "")
        assert found in line.lower(), output
        assert instead.partition(",")[0] in line.lower(), output


def test_parts_of_names_are_found_and_parts_of_words_are_not(tmp_path: Path) -> None:
    expression = next(found for found in ENTRIES if found.isalpha())
    file = tmp_path / "planted.py"
    file.write_text(f"un{expression}ed = 1\n")
    assert words(file) == (0, "")
    file.write_text(f"of_{expression}_2 = 1\n")
    assert words(file)[0] != 0
