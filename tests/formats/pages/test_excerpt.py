"""Excerpts: whole where they fit, bounded whatever the tokens stand for, and never wrong about what is trained."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_shards.formats.pages.excerpt import HEAD, MARKUP, TAIL, excerpt

pytestmark = pytest.mark.unit


class Spelled:
    """Id i is a text of its own."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def decode(self, ids: np.ndarray) -> str:
        return "".join(self.texts[one] for one in ids)


def shown(ids: list[int], mask: list[int], *texts: str, **bound: int) -> list[tuple[str, bool, bool]]:
    pieces = excerpt(np.array(ids), np.array(mask, dtype=np.uint8), Spelled(*texts), **bound)
    return [(piece.text, piece.trained, piece.is_gap) for piece in pieces]


def test_a_short_one_is_shown_as_it_is() -> None:
    assert shown([0, 1, 1], [0, 1, 1], "ask", "say") == [("ask", False, False), ("saysay", True, False)]


def test_line_ends_at_the_edge_of_a_trained_part_are_seen() -> None:
    assert shown([0, 1, 0], [0, 1, 0], "a\n", "\nb\nc\n\n")[1] == ("↵\nb\nc↵\n↵\n", True, False)


def test_nothing_is_obeyed() -> None:
    assert shown([0], [1], "a\x1b[2J\u202eb") == [(r"a\x1b[2J\u202eb", True, False)]


def test_the_middle_of_a_long_one_is_counted() -> None:
    extra = 50
    ids, mask = [0] * (HEAD + extra + TAIL), [0] * HEAD + [1] * 20 + [0] * (extra - 20) + [0] * (TAIL - 1) + [1]
    pieces = shown(ids, mask, "x")
    assert pieces[0] == ("x" * HEAD, False, False)
    assert pieces[1] == ("50 tokens more, 20 of them trained", False, True)
    assert pieces[2:] == [("x" * (TAIL - 1), False, False), ("x", True, False)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=60), st.integers(100, 2000))
def test_characters_are_bounded(tokens: list[tuple[int, int]], bound: int) -> None:
    texts = ("word ", "\x00" * 40, "日" * 300)
    pieces = shown([one for one, _ in tokens], [mask for _, mask in tokens], *texts, characters=bound)
    written = [(text, trained) for text, trained, gap in pieces if not gap]
    edges = sum(text.count("↵") for text, _ in written)
    assert sum(len(text) + MARKUP for text, _ in written) <= bound + edges + MARKUP
    whole = [("".join({0: "word ", 1: r"\x00" * 40, 2: "日" * 300}[one] for one, _ in tokens))]
    if not any(gap for *_, gap in pieces):
        assert "".join(text for text, _ in written) == whole[0]
    assert sum(gap for *_, gap in pieces) <= 1
