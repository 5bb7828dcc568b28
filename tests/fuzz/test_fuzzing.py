"""The fuzzers' own loop: it tries inputs, and names the file of the smallest one that fails."""

import re
from pathlib import Path

import fuzzing
import pytest
from hypothesis import strategies as st

pytestmark = pytest.mark.unit


def test_an_input_that_fails_is_left_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzing, "FOLDER", tmp_path)

    def check(data: bytes) -> None:
        assert b"x" not in data, "holds an x"

    monkeypatch.setattr(fuzzing, "SECONDS", 60)
    with pytest.raises(AssertionError, match="holds an x") as caught:
        fuzzing.fuzz("made-up", check, st.text("xyz", max_size=8).map(str.encode))
    path = Path(re.search(r"the input in (\S+)", str(caught.value))[1])
    assert path.parent == tmp_path / "found"
    assert path.read_bytes() == b"x"


def test_inputs_that_pass_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzing, "FOLDER", tmp_path)
    monkeypatch.setattr(fuzzing, "SECONDS", 0.01)
    assert fuzzing.fuzz("made-up", lambda data: None, st.just(b"a")) > 0
    assert list((tmp_path / "found").iterdir()) == []
