"""Opening what lies in a directory: regular files inside of it, reached through no link.

Shard directories and unfinished jobs are passed on between people, so a name in a manifest or a receipt, and every
entry on disk, may be chosen by a stranger. All reading and writing below a shard directory goes through this module.
The directory itself is named by the user and may be a link; below it every component of a path is opened with
O_NOFOLLOW, relative to the folder opened before it. A FIFO or a device is refused before it is opened, so that nothing
waits for a writer.

The price is a few system calls for each file. A process that changes the directory meanwhile cannot make these
functions follow a link, but it can change the bytes of a file that is open.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sft_shards.formats.errors import DataError

KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What an entry is called in messages, by the type bits of its mode."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def kind_of(mode: int) -> str:
    """Name the kind of an entry by its `st_mode`, such as "a link"."""
    return KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def handle_inside(directory: Path, name: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a regular file of a directory, and return the file descriptor; the caller closes it.

    Args:
        name: path below `directory`, with forward slashes, such as "train/tokens/00000.bin".
        flags: of `os.open`; with O_CREAT the file is made if it is not there, its folder is not.

    Raises:
        DataError: the name leads out of the directory, a link lies on the way, the entry is no regular file, or it is
            to be written and has a second name (a hard link) that would change with it.
        OSError: it cannot be opened; FileNotFoundError if it is not there.
    """
    *folders, last = _parts(directory, name)
    path = directory / name
    with _folder(directory, folders, make=False) as parent:
        try:
            mode = os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
            mode = stat.S_IFREG
        if not stat.S_ISREG(mode):
            raise _refused(path, mode)
        try:
            handle = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=parent)
        except OSError as error:
            error.filename = str(path)
            raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or (flags & os.O_ACCMODE != os.O_RDONLY and found.st_nlink > 1):
        os.close(handle)
        if stat.S_ISREG(found.st_mode):
            raise DataError(f"{path}: another name of the same file would be written too; remove this one")
        raise _refused(path, found.st_mode)
    return handle


def open_inside(directory: Path, name: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file of a directory for reading in binary mode; errors are those of `handle_inside`."""
    return os.fdopen(handle_inside(directory, name), "rb")


def read_inside(directory: Path, name: str | os.PathLike[str]) -> bytes:
    """Read a regular file of a directory; errors are those of `handle_inside`."""
    with open_inside(directory, name) as file:
        return file.read()


def size_inside(directory: Path, name: str | os.PathLike[str]) -> int | None:
    """Return the size in bytes of a regular file of a directory; None if there is no entry of that name.

    Raises:
        DataError: an entry of that name, or one on the way, is something else.
    """
    try:
        with open_inside(directory, name) as file:
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None


def is_file_inside(directory: Path, name: str | os.PathLike[str]) -> bool:
    """Whether there is a regular file of that name; errors are those of `size_inside`."""
    return size_inside(directory, name) is not None


def folder_inside(directory: Path, name: str | os.PathLike[str]) -> Path:
    """Make a folder below a directory with those on the way, or find them there, and return its path.

    Raises:
        DataError: the name leads out of the directory, or an entry on the way is no folder.
        OSError: it cannot be made.
    """
    with _folder(directory, _parts(directory, name), make=True):
        return directory / name


def entries(directory: Path) -> Iterator[tuple[str, int]]:
    """Walk a directory without following links: every path below it, sorted, with its `st_mode`.

    Raises:
        OSError: a folder cannot be read.
    """
    stack = [""]
    while stack:
        folder = stack.pop()
        if folder:
            yield folder.rstrip("/"), stat.S_IFDIR
        with os.scandir(directory / folder) as found:
            here = sorted(found, key=lambda entry: entry.name)
        for entry in here:
            path = folder + entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                stack.append(f"{path}/")
            else:
                yield path, mode


def is_inside(name: str) -> bool:
    """Whether a name stays below the directory that it is joined to: not absolute, no "..", nothing left empty.

    >>> [is_inside(name) for name in ("train/tokens/00000.bin", "../x", "/etc/passwd", "a//b", "")]
    [True, False, False, False, False]
    """
    return bool(name) and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _parts(directory: Path, name: str | os.PathLike[str]) -> list[str]:
    text = os.fspath(name)
    if not is_inside(text):
        raise DataError(f"{directory}: the name {text!r} leads out of this directory")
    return text.split("/")


@contextmanager
def _folder(directory: Path, parts: list[str], *, make: bool) -> Iterator[int]:
    """Open a folder below a directory, component by component, and give its file descriptor."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    path = directory
    try:
        for part in parts:
            path = path / part
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            try:
                inner = os.open(part, _FOLDER, dir_fd=handle)
            except OSError as error:
                error.filename = str(path)
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise _refused(path, os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode) from None
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _refused(path: Path, mode: int) -> DataError:
    return DataError(f"{path}: is {kind_of(mode)}; a shard directory holds regular files and folders only")
