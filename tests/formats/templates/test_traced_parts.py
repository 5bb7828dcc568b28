"""Parts of traced texts: what is answered is what ordinary texts answer, if they hold none of what must be absent."""

import operator
from itertools import product

import pytest

from sft_shards.formats.templates.traced_json import TracedJson, holds_traced, traced_tojson
from sft_shards.formats.templates.traced_parts import TracedLength, TracedSlice, UnknownText, item, length_of, sliced
from sft_shards.formats.templates.traced_text import Trace, TracedText, Untraceable, untraced

pytestmark = pytest.mark.unit

AROUND = list(product(("", "<", "ab"), ("", ">", "b<")))
VALUES = ["".join(one) for length in range(1, 5) for one in product("ab<", repeat=length)]
WORDS = ["", "a", "<", "ab", "<a", "b>", "ba", "b<", "aab", "<ab", "abb<"]
BOUNDS = [None, *range(-4, 5)]


def traced(before="", behind=""):
    trace = Trace()
    return before + TracedText.message(0, trace) + behind, trace


def held(trace, value):
    """Return whether the answers for a trace hold for a value."""
    return not any(one in value for one in trace.absent)


@pytest.mark.parametrize(("before", "behind"), AROUND)
def test_slices_are_those_of_ordinary_texts(before, behind):
    compared = told = 0
    for start, stop in product(BOUNDS, BOUNDS):
        text, trace = traced(before, behind)
        part = sliced(text, start, stop)
        if isinstance(part, TracedSlice):
            assert part
            for word in WORDS:
                trace.absent.clear()
                try:
                    answer = part == word
                except Untraceable:  # the word can begin in the text and end in the known words
                    assert before or behind
                    continue
                assert (part != word) is not answer
                values = [value for value in VALUES if held(trace, value)]
                assert values
                for value in values:
                    assert ((before + value + behind)[start:stop] == word) is answer, (start, stop, word, value)
                compared += 1
        elif isinstance(part, str):
            told += 1
            for value in VALUES:
                filled = untraced(part).replace(untraced(TracedText.message(0, trace)), value)
                assert filled == (before + value + behind)[start:stop], (start, stop, value)
    assert compared
    assert told


@pytest.mark.parametrize(("before", "behind"), AROUND)
def test_characters_are_those_of_ordinary_texts(before, behind):
    for index in range(-len(behind) - 1, len(before) + 1):
        for word in ("a", "<", "b", ">", "ab"):
            text, trace = traced(before, behind)
            answer = item(text, index) == word
            for value in VALUES:
                if held(trace, value):
                    assert ((before + value + behind)[index] == word) is answer, (index, word, value)
    for index in (-len(behind) - 2, len(before) + 1):
        with pytest.raises(Untraceable):
            item(traced(before, behind)[0], index)


@pytest.mark.parametrize(("before", "behind"), AROUND)
def test_the_end_of_a_text_behind_a_place_that_is_held_at_its_beginning(before, behind):
    answers = set()
    for number, word in product(range(5), WORDS):
        text, trace = traced(before, behind)
        try:
            answer = sliced(text, (TracedLength(text) - number).held(), None) == word
        except Untraceable:
            assert before or behind
            continue
        answers.add(answer)
        for value in VALUES:
            if held(trace, value):
                whole = before + value + behind
                assert (whole[max(len(whole) - number, 0) :] == word) is answer, (number, word, value)
    assert answers == {True, False}  # True of known words


@pytest.mark.parametrize(("before", "behind"), AROUND)
def test_a_place_that_is_not_held_is_followed_while_no_text_is_too_short(before, behind):
    text, _ = traced(before, behind)
    least = len(before) + 1 + len(behind)
    assert sliced(text, TracedLength(text) - least, None) != "zz"
    with pytest.raises(Untraceable):  # it would be counted from the end of a text of that length
        sliced(text, TracedLength(text) - least - 1, None)
    with pytest.raises(Untraceable):
        sliced(text, TracedLength(text) + 1, None)
    with pytest.raises(Untraceable):
        sliced(text, TracedLength(text + "!").held(), None)


@pytest.mark.parametrize(
    "compare", [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne, lambda a, b: b < a]
)
def test_lengths_are_those_of_ordinary_texts(compare):
    for (before, behind), less, number in product(AROUND, range(-1, 4), range(-4, 8)):
        text, _ = traced(before, behind)
        wanted = {compare(len(before + value + behind) - less, number) for value in [*VALUES, "a" * 20]}
        if len(wanted) > 1:
            with pytest.raises(Untraceable):
                compare(TracedLength(text) - less, number)
        else:
            try:
                answer = compare(TracedLength(text) - less, number)
            except Untraceable:
                assert number >= len(before) + len(behind) - less + 1
            else:
                assert {answer} == wanted


def test_a_length_is_true_where_it_is_above_0():
    text, _ = traced("a")
    assert TracedLength(text)
    assert TracedLength(text) - 1
    with pytest.raises(Untraceable):
        bool(TracedLength(text) - 2)


@pytest.mark.parametrize(
    "part",
    [TracedLength, lambda text: TracedLength(text).held(), lambda text: sliced(text, 0, 3), lambda _: UnknownText()],
)
@pytest.mark.parametrize(
    "look",
    [
        str,
        repr,
        len,
        list,
        int,
        hash,
        traced_tojson,
        lambda part: f"{part}",
        lambda part: str([part]),
        lambda part: "text" + part,
        lambda part: TracedText.message(0, Trace()) + part,
        lambda part: TracedText.message(0, Trace()) == part,
        lambda part: part == TracedText.message(0, Trace()),
        lambda part: part == part + 0,
        lambda part: "a" in part,
        lambda part: part in {"a": 1},
        lambda part: [1] * part,
        lambda part: "abc"[part:],
        lambda part: part < "a",
        lambda part: part[0],
        lambda part: part.upper(),
    ],
)
def test_nobody_looks_into_a_part(part, look):
    with pytest.raises(Untraceable):
        look(part(TracedText.message(0, Trace())))


def test_parts_are_noticed_in_containers():
    assert holds_traced([{"a": (UnknownText(),)}])
    assert not holds_traced([{"a": ("b", 1)}])


def test_a_slice_that_is_stripped_is_an_unknown_text():
    part = sliced(TracedText.message(0, Trace()), 1, None).strip().rstrip("\n").lstrip()
    with pytest.raises(Untraceable):
        bool(part)
    assert isinstance(part, UnknownText)


def test_slices_of_json_are_not_followed():
    text = traced_tojson(TracedText.message(0, Trace()))
    with pytest.raises(Untraceable):
        assert sliced(text, 0, 3) == "abc"
    assert isinstance(traced_tojson([TracedJson.value(0, Trace())]), TracedText)


def test_the_length_of_a_text_may_be_known():
    trace = Trace()
    trace.lengths = {0: 9}
    text, other = (TracedText.message(number, trace) for number in (0, 1))
    assert length_of(text) == 9
    for unknown in (other, text + "!", text.strip()):
        with pytest.raises(Untraceable):
            bool(length_of(unknown) == 9)
    wholes = 0
    for start, stop in product([None, *range(-11, 12)], repeat=2):
        part = sliced(text, start, stop)
        if "abcdefghi"[start:stop] == "abcdefghi":
            assert untraced(part) == untraced(text)
            wholes += 1
        else:
            assert not isinstance(part, TracedText)
    assert wholes == 5 * 4  # from None, -11, -10, -9 or 0 to None, 9, 10 or 11
