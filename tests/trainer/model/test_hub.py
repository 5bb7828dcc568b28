"""`--model` as a folder or a name on the Hub: what is asked for, and what never is. No network is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.trainer import cli
from sft_shards.trainer.model import hub

pytestmark = pytest.mark.unit


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    import huggingface_hub

    calls: list[tuple[str, str | None]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append((name, revision))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_name_is_fetched_at_its_revision(asked: list[tuple[str, str | None]], tmp_path: Path) -> None:
    assert hub.folder("owner/model", "v1") == hub.folder("owner/model") == str(tmp_path / "snapshot")
    assert asked == [("owner/model", "v1"), ("owner/model", None)]


@pytest.mark.parametrize("name", ["./model", "~/none", "/none", "model/", "a/b/c", "model", "here/none", "../none"])
def test_a_path_is_never_asked_for(asked: list[tuple[str, str | None]], tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(UsageError, match="no such folder"):
        hub.folder(name)
    assert asked == []


def test_a_folder_has_no_revision(asked: list[tuple[str, str | None]], tmp_path: Path) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert hub.folder("owner/model") == "owner/model"
    with pytest.raises(UsageError, match="--revision v1: --model owner/model is a folder here"):
        hub.folder("owner/model", "v1")
    assert asked == []


def test_a_revision_is_for_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["--shards", "x", "--hf-config", "y", "--revision", "v1"]) == 2
    assert "--revision v1: it is for a --model from the Hub" in capsys.readouterr().err
