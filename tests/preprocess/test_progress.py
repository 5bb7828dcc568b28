"""The progress line: it fits any terminal, and ends with 100% and the time that it took."""

import io
import re

import pytest

from sft_shards.preprocess import progress
from sft_shards.preprocess.progress import Progress

pytestmark = pytest.mark.unit


class Screen(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


def shown(monkeypatch, *, terminal, columns=80, error=None):
    """What a job of two tasks prints; it ends with an error if there is one."""
    screen = Screen(terminal)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(progress, "width_of", lambda stream: columns if stream.isatty() else 1000)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    try:
        with Progress(tasks=2, size=4_000_000_000) as counted:
            for _ in range(4):
                counted._shown = float("-inf")
                counted.add(1_234_567_890, 98_765_432_100, 1_234_567, 1_000_000_000)
            counted.task_done()
            if error is not None:
                raise error
            counted.task_done()
    except KeyboardInterrupt:
        pass
    return screen.getvalue()


@pytest.mark.parametrize("columns", [1, 5, 20, 40, 60, 80, 100, 200])
def test_a_line_fits_the_terminal(monkeypatch, columns):
    for line in re.split(r"\r\x1b\[K", shown(monkeypatch, terminal=True, columns=columns).rstrip("\n")):
        assert len(line) < max(columns, 2)
        assert "\n" not in line


def test_what_matters_most_is_left(monkeypatch):
    counted = Progress(tasks=2, size=100)
    counted.add(10, 1000, 1, 25)
    lines = [counted.line(5.0, width=width) for width in range(4, 110)]
    assert lines[0] == " 25%"
    assert lines[-1].startswith("█████░░░░░░░░░░░░░░░  25%  0:00:15 left  10 records (2/s)")
    assert all(len(line) <= width for width, line in enumerate(lines, 4))
    assert sorted(map(len, lines)) == list(map(len, lines))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_end_is_whole_and_says_how_long_it_took(monkeypatch, terminal):
    out = shown(monkeypatch, terminal=terminal, columns=200)
    last = out.rstrip("\n").splitlines()[-1].rpartition("\x1b[K")[2]
    assert "100%  in 0:00:0" in last
    assert out.endswith("\n")
    assert out.count("\n") == (1 if terminal else 5)


def test_an_interrupted_job_is_not_said_to_be_whole(monkeypatch):
    out = shown(monkeypatch, terminal=True, columns=200, error=KeyboardInterrupt())
    assert "  in 0:00" not in out
    assert out.endswith("left out  task 1/2\n")


def test_a_short_job_prints_nothing_into_a_file(monkeypatch):
    screen = Screen(False)
    monkeypatch.setattr("sys.stderr", screen)
    with Progress(tasks=1, size=1) as counted:
        counted.add(1, 1, 0, 1)
    assert screen.getvalue() == ""
