"""The lock file, the constraints and the declared dependencies are one set of versions, with the hash of every file."""

import configparser
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
LOCKED = ("train", "train-torch", "ray", "chat", "dev")
"""The extras that `make lock` takes; the tools of `audit` and `site` have environments of their own."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(lines: str) -> set[str]:
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines.split("\n") if line.strip()}


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    pairs = (line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines())
    return {canonical(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def lock() -> dict[str, tuple[str, list[str]]]:
    """By name, the version and the hashes of each entry; every line is part of one."""
    text = (ROOT / "requirements.lock").read_text("utf-8")
    entry = re.compile(r"^([\w.-]+)==([\w.+!-]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)
    assert not entry.sub("", text).strip(), "every line is an entry or a hash of one, and nothing names a host"
    return {
        canonical(name): (version, re.findall("[0-9a-f]{64}", hashes)) for name, version, hashes in entry.findall(text)
    }


@pytest.fixture(scope="module")
def extras() -> dict[str, set[str]]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    found = {name: names(lines) for name, lines in parser["options.extras_require"].items()}
    return found | {"": names(parser["options"]["install_requires"])}


def test_the_lock_holds_what_is_declared(lock, extras):
    assert set().union(extras[""], *(extras[name] for name in LOCKED)) <= lock.keys()


def test_the_lock_agrees_with_the_constraints(lock, constraints, extras):
    assert {name: lock[name][0] for name in constraints.keys() & lock.keys()} == {
        name: constraints[name] for name in constraints.keys() & lock.keys()
    }
    assert constraints.keys() - lock.keys() == extras["audit"] | extras["site"]


def test_every_entry_has_hashes_of_its_own(lock):
    every = [hash_ for _, hashes in lock.values() for hash_ in hashes]
    assert all(hashes for _, hashes in lock.values())
    assert len(every) == len(set(every))
