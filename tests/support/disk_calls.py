"""A call in a process of its own, whose changes of the disk are seen one system call at a time, by ptrace(2).

    watched(function, arguments, below=folder)                      which changes there are
    watched(function, arguments, below=folder, kill_before=7)       SIGKILL just before the seventh of them
    watched(function, arguments, below=folder, full_from=7)         the disk is full from the seventh on

Nothing is patched, so changes by pyarrow, numpy and the interpreter are seen like our own. A seccomp filter stops the
process at the calls in `CALLS` alone, and the rest runs at full speed. Only changes below a folder count, because output
to a terminal or a cache is no part of what is tested. Linux on x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Call(NamedTuple):
    """How a system call names what it changes: a file descriptor, or paths below folders."""

    name: str
    fd: int | None = None
    """Number of the argument that is an open file."""
    paths: tuple[tuple[int | None, int], ...] = ()
    """Numbers of the arguments that are a folder's descriptor (None for the working directory) and a path."""
    flags: int | None = None
    """Number of the argument with the flags of an open."""


CALLS = {
    1: Call("write", fd=0), 18: Call("pwrite", fd=0), 20: Call("writev", fd=0), 296: Call("pwritev", fd=0),
    328: Call("pwritev2", fd=0), 40: Call("sendfile", fd=0), 326: Call("copy_file_range", fd=2),
    275: Call("splice", fd=2), 77: Call("ftruncate", fd=0), 285: Call("fallocate", fd=0),
    74: Call("fsync", fd=0), 75: Call("fdatasync", fd=0), 91: Call("fchmod", fd=0),
    76: Call("truncate", paths=((None, 0),)), 90: Call("chmod", paths=((None, 0),)),
    268: Call("fchmodat", paths=((0, 1),)), 452: Call("fchmodat2", paths=((0, 1),)),
    2: Call("open", paths=((None, 0),), flags=1), 257: Call("openat", paths=((0, 1),), flags=2),
    85: Call("creat", paths=((None, 0),)),
    82: Call("rename", paths=((None, 0), (None, 1))), 264: Call("renameat", paths=((0, 1), (2, 3))),
    316: Call("renameat2", paths=((0, 1), (2, 3))),
    86: Call("link", paths=((None, 0), (None, 1))), 265: Call("linkat", paths=((0, 1), (2, 3))),
    88: Call("symlink", paths=((None, 1),)), 266: Call("symlinkat", paths=((1, 2),)),
    87: Call("unlink", paths=((None, 0),)), 263: Call("unlinkat", paths=((0, 1),)), 84: Call("rmdir", paths=((None, 0),)),
    83: Call("mkdir", paths=((None, 0),)), 258: Call("mkdirat", paths=((0, 1),)),
}  # fmt: skip
"""Every call of Linux on x86-64 that changes files, by its number."""
NEEDS_ROOM = {
    "write", "pwrite", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice", "fallocate", "fsync",
    "fdatasync", "openat", "open", "creat", "mkdir", "mkdirat", "link", "linkat", "rename", "renameat",
}  # fmt: skip
"""Those that a full disk may refuse."""
CONTENT = {"write", "pwrite", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice", "ftruncate",
           "fallocate", "truncate", "fchmod", "chmod", "fchmodat", "fchmodat2"}  # fmt: skip
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TRACEME, CONT, SETOPTIONS, POKEUSER, GET_SYSCALL_INFO = 0, 7, 0x4200, 6, 0x420E
OPTIONS = 0x2 | 0x4 | 0x8 | 0x80 | 0x100000
"""Follow forks and threads, stop where the filter says so, and let nobody outlive the one who watches."""
EVENT_SECCOMP = 7
RAX, ORIG_RAX = 80, 120
WALL = 0x40000000
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(
    ["sft_shards.preprocess.engines.forkserver_preload", "sft_shards.preprocess.cli", "sft_shards.preprocess.job",
     "sft_shards.preprocess.directories.merge", "disk_calls"]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What became of a call."""

    status: int
    """Exit status; -9 where it was killed."""
    calls: list[str]
    """Every change of the disk that it began: the name, and the paths below the folder."""
    early: list[str]
    """What was not durable when a manifest, a finished task or a replacing directory got its name."""
    error: str
    """What it wrote to standard error."""


def watched(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    below: Any,
    kill_before: int = 0,
    full_from: int = 0,
    fork: bool = False,
) -> Watched:
    """Call a function in a process of its own, and watch it.

    Args:
        function: what it returns is the exit status; of a module that can be imported, unless `fork`.
        below: folder whose changes count.
        kill_before: number of a change, from 1; 0 for never.
        full_from: number of a change, from 1; 0 for never.
        fork: from this process, for what it has imported, instead of from a server without threads.
    """
    assert platform.machine() == "x86_64", "the numbers of system calls are those of x86-64"
    context: Any = multiprocessing.get_context("fork") if fork else server
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_watcher, args=(theirs, function, tuple(arguments), os.path.realpath(below), kill_before, full_from)
    )
    process.start()
    theirs.close()
    found: Watched = ours.recv()
    process.join()
    return found


def command(module: str, *words: object) -> int:
    """Run a command of ours, as a function to watch."""
    import importlib

    sys.argv = ["sft-preprocess", *map(str, words)]
    try:
        importlib.import_module(module).main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def preprocess(*commands: Sequence[object]) -> int:
    """Run commands of `sft-preprocess` one after the other, until one fails."""
    for words in commands:
        if status := command("sft_shards.preprocess.cli", *words):
            return status
    return 0


def _watcher(connection: Any, function: Any, arguments: Any, below: str, kill_before: int, full_from: int) -> None:
    error = os.memfd_create("stderr")
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.dup2(error, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            _ptrace(TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            _filter()
            status = int(function(*arguments) or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    watcher = _Watcher(below=below, kill_before=kill_before, full_from=full_from)
    status = watcher.follow(pid)
    size = os.fstat(error).st_size
    text = os.pread(error, size, 0).decode("utf-8", "replace")
    connection.send(Watched(status=status, calls=watcher.calls, early=watcher.early, error=text))


@dataclass(kw_only=True)
class _Watcher:
    below: str
    kill_before: int
    full_from: int
    calls: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    durable: set[tuple[int, int]] = field(default_factory=set)
    """Files and folders that were synced and have not changed since, by device and inode."""

    def follow(self, first: int) -> int:
        os.waitpid(first, 0)
        _ptrace(SETOPTIONS, first, 0, OPTIONS)
        _ptrace(CONT, first, 0, 0)
        while True:
            pid, status = os.waitpid(-1, WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if pid == first:
                    return os.waitstatus_to_exitcode(status)
                continue
            sent = os.WSTOPSIG(status)
            event = status >> 16
            if event == EVENT_SECCOMP and self._change(pid):
                os.kill(first, signal.SIGKILL)
                continue
            passed = 0 if event or sent in (signal.SIGTRAP, signal.SIGSTOP) else sent
            try:
                _ptrace(CONT, pid, 0, passed)
            except ProcessLookupError:
                continue

    def _change(self, pid: int) -> bool:
        """Look at a call that is about to be made, and return whether the process is to be killed."""
        number, arguments = _syscall(pid)
        call = CALLS[number]
        if call.flags is not None and not arguments[call.flags] & CHANGES:
            return False
        paths = _paths(pid, call, arguments)
        if call.name in ("fsync", "fdatasync"):
            self.durable.add(_inode(f"/proc/{pid}/fd/{arguments[0]}"))  # of a linked file, under its other name as well
        if not any(path == self.below or path.startswith(self.below + "/") for path in paths):
            return False
        if call.name.startswith("mkdir") and os.path.isdir(paths[0]):
            return False  # it is there already
        if call.name == "rmdir" and not (os.path.isdir(paths[0]) and not os.listdir(paths[0])):
            return False  # only an empty folder is removed
        shown = [os.path.relpath(path, self.below) for path in paths]
        self.calls.append(" ".join([call.name, *shown]))
        if len(self.calls) == self.kill_before:
            return True
        if self.full_from and len(self.calls) >= self.full_from and call.name in NEEDS_ROOM:
            _ptrace(POKEUSER, pid, ORIG_RAX, -1)
            _ptrace(POKEUSER, pid, RAX, -errno.ENOSPC)
            return False
        self._note(pid, call, arguments, paths)
        return False

    def _note(self, pid: int, call: Call, arguments: Sequence[int], paths: list[str]) -> None:
        """Keep account of what is durable, and look whether something gets its name too early."""
        if call.name in CONTENT:
            self.durable.discard(_inode(f"/proc/{pid}/fd/{arguments[call.fd]}" if call.fd is not None else paths[0]))
        elif call.name not in ("fsync", "fdatasync"):
            self._check(call, paths)
            if call.flags is None or not os.path.lexists(paths[0]):
                for path in paths:
                    self.durable.discard(_inode(os.path.dirname(path)))
            gone = paths if call.name.startswith(("unlink", "rmdir", "open", "creat")) else paths[1:]
            for path in gone if call.name != "renameat2" else ():
                if not (call.flags is not None and not arguments[call.flags] & os.O_TRUNC):
                    self.durable.discard(_inode(path))

    def _check(self, call: Call, paths: list[str]) -> None:
        """When a manifest gets its name, all it names is durable; when a folder does, all in it is."""
        if not call.name.startswith("rename"):
            return
        source, target = paths
        needed: list[str] = []
        if os.path.basename(target) == "manifest.json":
            folder = os.path.dirname(target)
            needed = [os.path.dirname(folder), folder, source, *_walk(folder, leave_out=".work")]
        elif call.name == "renameat2" or os.path.basename(source).startswith("attempt-") or source.endswith(".partial"):
            needed = [source, *_walk(source, leave_out=".work")]
        self.early += [f"{path} before {target}" for path in needed if _inode(path) not in self.durable]


def _walk(folder: str, leave_out: str) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder):
        if leave_out in folders:
            folders.remove(leave_out)
        found += [os.path.join(parent, name) for name in (*folders, *files)]
    return found


def _inode(path: str) -> tuple[int, int]:
    try:
        state = os.stat(path)
    except OSError:
        return (0, 0)
    return state.st_dev, state.st_ino


def _paths(pid: int, call: Call, arguments: Sequence[int]) -> list[str]:
    if call.fd is not None:
        try:
            return [os.readlink(f"/proc/{pid}/fd/{arguments[call.fd]}")]
        except OSError:
            return []
    found = []
    for folder, at in call.paths:
        path = _string(pid, arguments[at])
        number = -100 if folder is None else ctypes.c_int(arguments[folder]).value
        try:
            base = os.readlink(f"/proc/{pid}/cwd" if number == -100 else f"/proc/{pid}/fd/{number}")
        except OSError:
            base = "/"
        found.append(os.path.normpath(os.path.join(base, path)))
    return found


def _string(pid: int, address: int) -> str:
    text = b""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        while b"\0" not in text:
            memory.seek(address + len(text))
            text += memory.read(4096 - (address + len(text)) % 4096)
    return os.fsdecode(text.partition(b"\0")[0])


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    mask = (1 << 64) - 1
    ctypes.set_errno(0)
    result: int = _libc.ptrace(request, pid, address & mask, data & mask)
    if result < 0 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _syscall(pid: int) -> tuple[int, tuple[int, ...]]:
    """The number and the arguments of the call that a process has stopped before."""
    space = ctypes.create_string_buffer(88)
    _ptrace(GET_SYSCALL_INFO, pid, len(space), ctypes.addressof(space))
    number, *arguments = struct.unpack_from("<7Q", space.raw, 24)
    return number, tuple(arguments)


def _filter() -> None:
    """Have this process, and what it starts, stop before each of `CALLS`."""
    load, equal, answer = 0x20, 0x15, 0x06
    trace, allow = 0x7FF00000, 0x7FFF0000
    code = [(load, 0, 0, 0)]
    for number in CALLS:
        code += [(equal, 0, 1, number), (answer, 0, 0, trace)]
    code.append((answer, 0, 0, allow))
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in code))
    head = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(program)))
    for option, *values in ((38, 1, 0, 0, 0), (22, 2, ctypes.addressof(head), 0, 0)):  # no new privileges; filter
        arguments = [ctypes.c_ulong(value) for value in values]
        assert _libc.prctl(option, *arguments) == 0, os.strerror(ctypes.get_errno())
