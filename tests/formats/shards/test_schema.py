"""JSON is checked against the types of the fields, and an error names the place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sft_shards.formats.shards.schema import SchemaError, build, parse

pytestmark = pytest.mark.unit


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Outer:
    share: float
    on: bool
    inner: Inner
    many: tuple[Inner, ...]
    by_name: dict[str, int]
    three: tuple[int, int, str]
    maybe: Inner | None
    anything: Mapping[str, Any]
    more: dict[str, Inner] = field(default_factory=dict)


INNER = {"name": "a", "size": 1}
RIGHT: dict[str, Any] = {
    "share": 1,
    "on": True,
    "inner": INNER,
    "many": [INNER, INNER],
    "by_name": {"x": 1},
    "three": [1, 2, "c"],
    "maybe": None,
    "anything": {"x": [None]},
}


def test_what_fits_is_built():
    made = build(Outer, {**RIGHT, "maybe": INNER})
    assert made == Outer(
        share=1,
        on=True,
        inner=Inner(name="a", size=1),
        many=(Inner(name="a", size=1),) * 2,
        by_name={"x": 1},
        three=(1, 2, "c"),
        maybe=Inner(name="a", size=1),
        anything={"x": [None]},
    )
    assert build(Outer, RIGHT).maybe is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": "1"}, 'share is "1", not a number'),
        ({"on": 1}, "on is 1, not true or false"),
        ({"inner": {**INNER, "size": True}}, "inner.size is true, not an integer"),
        ({"inner": {**INNER, "size": 1.0}}, "inner.size is 1.0, not an integer"),
        ({"inner": []}, "inner is list, not an object"),
        ({"inner": {"name": "a"}}, "inner.size is missing"),
        ({"inner": {**INNER, "x\n": 1}}, "inner.'x\\n' is not known"),
        ({"many": INNER}, "many is dict, not an array"),
        ({"many": [INNER, {**INNER, "name": None}]}, "many[1].name is null, not a string"),
        ({"by_name": {"x": "y" * 99}}, 'by_name.x is "' + "y" * 56 + "..., not an integer"),
        ({"three": [1, 2]}, "three has 2 items, not 3"),
        ({"maybe": 5}, "maybe is 5, not an object"),
        ({"anything": 5}, "anything is 5, not an object"),
        ({"more": {"a": {}}}, "more.a.name is missing"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(SchemaError) as error:
        build(Outer, {**RIGHT, **change})
    assert message in (str(error.value), str(error.value).replace("more.a.size", "more.a.name"))


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b"{", b"1" * 100_000])
def test_what_is_no_json_is_one_error(text):
    with pytest.raises(SchemaError, match="not JSON"):
        parse(text)
