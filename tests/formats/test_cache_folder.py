"""Whose cache entries are believed, for tokenizers and for pack plans alike."""

import os
from types import SimpleNamespace

import pytest

from sft_shards.formats import cache_folder
from sft_shards.formats.cache_folder import is_trusted, read_private

pytestmark = pytest.mark.unit

ROOT, OWN, SQUASHED, OTHER = 0, 4242, 7, 8


@pytest.mark.parametrize(
    ("owner", "mode", "trusted"),
    [
        (OWN, 0o644, True),
        (ROOT, 0o644, True),
        (SQUASHED, 0o644, True),
        (OTHER, 0o644, False),
        (OWN, 0o664, False),
        (OWN, 0o646, False),
        (ROOT, 0o666, False),
    ],
)
def test_who_can_have_written_it(tmp_path, monkeypatch, owner, mode, trusted):
    """This user, root, and the user that the file system gives new files to; nobody may have had leave to write."""
    calls = SimpleNamespace(geteuid=lambda: OWN, fstat=lambda handle: SimpleNamespace(st_uid=SQUASHED))
    monkeypatch.setattr(cache_folder, "os", calls)
    assert is_trusted(SimpleNamespace(st_uid=owner, st_mode=mode), tmp_path) is trusted


def test_a_file_of_another_user_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "entry"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"x")
    path.chmod(0o600)
    assert read_private(path) == b"x"
    trusted = cache_folder.is_trusted
    monkeypatch.setattr(cache_folder, "is_trusted", lambda state, folder: os.path.isdir(folder) and state.st_size != 1)
    assert read_private(path) is None
    monkeypatch.setattr(cache_folder, "is_trusted", trusted)
    assert read_private(path) == b"x"
