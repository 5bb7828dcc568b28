"""What is remembered of Megatron's validation: this very call, in this environment, with these files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_shards.trainer.mcore import accepted_calls

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SFT_SHARDS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blend.json").write_text("{}")
    return tmp_path


def test_the_same_call_is_remembered_and_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv, variables = ("--lr=1", "--data-args-path=blend.json"), {"WORLD_SIZE": "2", "SHLVL": "1"}
    assert accepted_calls.warning_of(argv, 128, variables) is None
    accepted_calls.keep(argv, 128, variables, warning="newer than any")
    assert accepted_calls.warning_of(argv, 128, variables) == "newer than any"
    assert accepted_calls.warning_of(argv, 128, {**variables, "SHLVL": "2"}) == "newer than any"
    assert accepted_calls.warning_of(argv[:1], 128, variables) is None
    assert accepted_calls.warning_of(argv, 256, variables) is None
    assert accepted_calls.warning_of(argv, 128, {"WORLD_SIZE": "4"}) is None
    monkeypatch.setattr(accepted_calls, "installation", lambda: "another")
    assert accepted_calls.warning_of(argv, 128, variables) is None
    monkeypatch.undo()


def test_a_file_that_changed_is_looked_at_again(folder: Path) -> None:
    argv = ("--data-args-path=blend.json",)
    accepted_calls.keep(argv, 128, {}, warning="")
    assert accepted_calls.warning_of(argv, 128, {}) == ""
    (folder / "blend.json").write_text("[1]")
    assert accepted_calls.warning_of(argv, 128, {}) is None


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"7"])
def test_a_damaged_entry_says_nothing(folder: Path, content: bytes) -> None:
    accepted_calls.keep((), 128, {}, warning="")
    (entry,) = (folder / "cache" / "megatron").iterdir()
    entry.write_bytes(content)
    assert accepted_calls.warning_of((), 128, {}) is None
