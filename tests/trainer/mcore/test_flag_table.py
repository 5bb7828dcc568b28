"""The kept table of Megatron's flags: a parser made of it reads what Megatron's own reads, or asks for Megatron's own."""

from __future__ import annotations

import argparse
import enum
import os
from pathlib import Path
from typing import Any

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer.mcore import compat, flag_table, flags


class Colour(enum.Enum):
    RED = 1


def own_parser() -> flags.Parser:
    """One action of each kind that Megatron's parser has."""
    made = flags.Parser(prog="sft-train", allow_abbrev=False, add_help=False)
    made.add_argument("--num-layers", "--layers", type=int, required=True)
    made.add_argument("--lr", type=float, default=1e-3)
    made.add_argument("--name", default="x", choices=["x", "y"])
    made.add_argument("--path", nargs="*", default=[])
    made.add_argument("--maybe", nargs="?", const=7, default=None, type=int)
    made.add_argument("--level", action="store_const", const=3)
    made.add_argument("--swiglu", action="store_true")
    made.add_argument("--no-bias", action="store_false", dest="bias")
    made.add_argument("--more", action="append")
    made.add_argument("--fancy", action=argparse.BooleanOptionalAction, default=True)
    made.add_argument("--colour", type=lambda text: Colour[text], default=Colour.RED, choices=list(Colour))
    made.add_argument("--count", action="count", default=0)
    return made


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SFT_SHARDS_CACHE", str(tmp_path))
    return tmp_path / "megatron"


def loaded() -> flags.Parser:
    made = flag_table.load()
    assert made is not None
    return made


def parsed(parser: argparse.ArgumentParser, *words: str) -> dict[str, Any] | str:
    try:
        found = vars(parser.parse_args(["--num-layers=2", *words]))
    except UsageError as error:
        return str(error)
    return {name: value for name, value in found.items() if name not in ("colour", "count")}


@pytest.mark.unit
@pytest.mark.parametrize(
    "words",
    [
        *([], ["--layers=3", "--lr", "-0.5"], ["--lr=nan", "--name=y"], ["--lr=x"], ["--name=z"], ["--num-layers"]),
        *(["--path", "a", "b", "--swiglu", "--no-bias"], ["--path"], ["--maybe"], ["--maybe=4"], ["--level"]),
        *(["--more=1", "--more=2", "--no-fancy"], ["--fancy"], ["--swiglu=1"], ["--num-layer=2"]),
    ],
)
def test_a_table_reads_what_the_parser_reads(folder: Path, words: list[str]) -> None:
    flag_table.keep(own_parser())
    assert str(parsed(loaded(), *words)) == str(parsed(own_parser(), *words))  # as text: nan is not nan


@pytest.mark.unit
@pytest.mark.parametrize("words", [["--colour=RED"], ["--colour=BLUE"], ["--count"]])
def test_a_flag_that_only_megatron_can_read_asks_for_megatron(folder: Path, words: list[str]) -> None:
    flag_table.keep(own_parser())
    assert {"--colour", "--count"} <= loaded()._option_string_actions.keys()
    with pytest.raises(flag_table.NeedsMegatronError, match=words[0].partition("=")[0]):
        parsed(loaded(), *words)


@pytest.mark.unit
def test_only_a_table_that_this_user_wrote_is_believed(folder: Path) -> None:
    assert flag_table.load() is None
    flag_table.keep(own_parser())
    (entry,) = folder.iterdir()
    assert entry == flag_table.path()
    content = entry.read_bytes()
    for damaged in (b"", b"[", b"[7]", b'[{"options": []}]', content[:-9]):
        entry.write_bytes(damaged)
        assert flag_table.load() is None
        flag_table.keep(own_parser())
        assert entry.read_bytes() == content
    entry.chmod(0o666)
    assert flag_table.load() is None


@pytest.mark.unit
def test_another_megatron_has_another_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Megatron is found on the path, where a checkout may lie as well."""
    for name in ("megatron/training", "megatron/core/models"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "code.py").write_text("1\n")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "megatron")]})
    monkeypatch.setattr(flag_table.importlib.util, "find_spec", lambda name: spec)
    keys = []
    for change in (
        lambda: None,
        lambda: (tmp_path / "megatron/core/models/code.py").write_text("22\n"),
        lambda: os.utime(tmp_path / "megatron/training/code.py", (1, 1)),
        lambda: (tmp_path / "megatron_core-9.dist-info").mkdir(),
    ):
        change()
        monkeypatch.setattr(flag_table.sys, "path", [str(tmp_path)])
        flag_table.installation.cache_clear()
        keys.append(flag_table.installation())
    flag_table.installation.cache_clear()
    assert len(set(keys)) == 4


@pytest.mark.megatron
@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
def test_the_flags_of_the_installed_megatron_are_kept(folder: Path) -> None:
    own = compat.parser()
    flag_table.keep(own)
    table = loaded()
    assert table._option_string_actions.keys() == own._option_string_actions.keys()
    kept = 0
    for theirs, ours in zip(own._actions, table._actions, strict=True):
        assert (ours.option_strings, ours.dest, ours.nargs) == (theirs.option_strings, theirs.dest, theirs.nargs)
        if not isinstance(ours, flag_table._Unreadable):
            kept += 1
            assert (ours.default, ours.const) == (theirs.default, theirs.const)
            assert list(ours.choices or ()) == list(theirs.choices or ())
            assert ours.type is theirs.type or isinstance(ours, argparse.BooleanOptionalAction)
    assert len(own._actions) - kept <= 20
