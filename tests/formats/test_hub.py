"""A path never becomes a name on the Hub, and the revision is passed on; no network is used."""

import pytest

from sft_shards.formats import hub
from sft_shards.formats.errors import UsageError

pytestmark = pytest.mark.unit


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the Hub was asked for."""
    import huggingface_hub

    calls = []

    def download(name, *, revision, allow_patterns):
        calls.append((name, revision))
        return str(tmp_path / "models--x" / "snapshots" / ("0123456789" * 4))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize(
    "text",
    ["./model", "../model", "/models/x", "~/model", "~", "model/", "owner/model/", "a/b/c", "", ".", "..", "a//b",
     "owner/.hidden", "models\\x", "owner/model\n", "-x/y", "моdel/x"],
)  # fmt: skip
def test_what_looks_like_a_path_is_never_asked_for(asked, text):
    with pytest.raises(UsageError, match="no such folder"):
        hub.fetch(text, ["*"], option="--model")
    assert asked == []


def test_a_mistyped_folder_below_one_that_exists_is_never_asked_for(asked, tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(UsageError, match="--model models/lama: no such folder"):
        hub.fetch("models/lama", ["*"], option="--model")
    assert asked == []


def test_the_revision_is_passed_on_and_the_commit_told(asked):
    folder = hub.fetch("owner/model", ["*"], option="--model", revision="v1.0")
    assert asked == [("owner/model", "v1.0")]
    assert hub.commit(folder) == "0123456789" * 4
    assert hub.commit(folder.parent) is None


@pytest.mark.parametrize("revision", ["", "-x", "a b", "../x", "v1\n"])
def test_a_revision_that_is_none_is_refused(asked, revision):
    with pytest.raises(UsageError, match="not a commit, a tag or a branch"):
        hub.fetch("owner/model", ["*"], option="--model", revision=revision)
    assert asked == []
