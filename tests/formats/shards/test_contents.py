"""What lies in a directory is opened if it is a regular file inside of it, reached through no link; nothing hangs."""

import os
import socket
import stat

import pytest

from sft_shards.formats.errors import DataError
from sft_shards.formats.shards.contents import (
    entries,
    folder_inside,
    handle_inside,
    is_file_inside,
    open_inside,
    read_inside,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"text")
    return root


def test_a_file_inside_is_read_through_a_link_to_the_directory(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    for root in (folder, tmp_path / "link"):
        assert read_inside(root, "a/b/file") == b"text"
        assert is_file_inside(root, "a/b/file")
        assert not is_file_inside(root, "a/none/file")


@pytest.mark.parametrize("name", ["../outside/secret", "/etc/passwd", "a/../../outside/secret", "", ".", "a//b", "a\0"])
def test_names_that_lead_out_are_refused(folder, name):
    for use in (read_inside, folder_inside, is_file_inside):
        with pytest.raises(DataError, match="leads out of this directory"):
            use(folder, name)


def test_links_are_refused_wherever_they_lie(folder, tmp_path):
    (folder / "link").symlink_to(tmp_path / "outside" / "secret")
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    (folder / "within").symlink_to("a/b/file")
    (folder / "out").symlink_to(tmp_path / "outside")
    for name in ("link", "dangling", "within", "out/secret"):
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
            with pytest.raises(DataError, match="is a link"):
                handle_inside(folder, name, flags)
    with pytest.raises(DataError, match="out: is a link"):
        folder_inside(folder, "out/new")
    assert not (tmp_path / "nothing").exists()
    assert os.listdir(tmp_path / "outside") == ["secret"]


def test_what_is_no_file_is_refused_without_waiting(folder, monkeypatch):
    os.mkfifo(folder / "fifo")
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        for name, kind in (("fifo", "a FIFO"), ("socket", "a socket"), ("a", "a folder")):
            with pytest.raises(DataError, match=f"is {kind}"):
                open_inside(folder, name)
        with pytest.raises(DataError, match="fifo: is a FIFO"):
            read_inside(folder, "fifo/x")
        with pytest.raises(DataError, match="is a FIFO"):
            folder_inside(folder, "fifo/x")


def test_a_device_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a device"):
        open_inside(tmp_path.__class__("/dev"), "null")


def test_a_second_name_of_a_file_is_read_and_never_written(folder, tmp_path):
    os.link(tmp_path / "outside" / "secret", folder / "name")
    assert read_inside(folder, "name") == b"secret"
    with pytest.raises(DataError, match="another name of the same file"):
        handle_inside(folder, "name", os.O_RDWR | os.O_CREAT)


def test_folders_are_made_and_files_created(folder):
    assert folder_inside(folder, "x/y") == folder_inside(folder, "x/y") == folder / "x" / "y"
    handle = handle_inside(folder, "x/y/new", os.O_RDWR | os.O_CREAT)
    os.write(handle, b"1")
    os.close(handle)
    assert read_inside(folder, "x/y/new") == b"1"
    with pytest.raises(FileNotFoundError) as error:
        open_inside(folder, "x/none")
    assert error.value.filename == str(folder / "x" / "none")


def test_entries_are_walked_without_following_links(folder, tmp_path):
    (folder / "out").symlink_to(tmp_path / "outside")
    found = dict(entries(folder))
    assert set(found) == {"a", "a/b", "a/b/file", "out"}
    assert stat.S_ISLNK(found["out"])
    assert stat.S_ISREG(found["a/b/file"])
    assert stat.S_ISDIR(found["a/b"])


def test_no_file_descriptor_is_left_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a/b/file", "a", "../x", "none", "a/b/file/x"):
        try:
            open_inside(folder, name).close()
        except (DataError, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before
