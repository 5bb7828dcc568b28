"""How conversations are kept apart: what is chosen, and what is refused."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.isolation.choose import ISOLATIONS, Isolation, choose

pytestmark = pytest.mark.unit


def chosen(*, given: tuple[str, ...] = (), flags: dict[str, Any] | None = None, **asked: Any) -> Isolation:
    usual = {"transformer_impl": "transformer_engine", "micro_batch_size": 1, "window_size": None}
    options = {"asked": "auto", "batching": "packed", "device": "gpu", "trial": "", "engine": True, **asked}
    return choose(args=Namespace(**{**usual, **(flags or {})}), given=frozenset(given), **options)


LOCAL = {"given": ("transformer_impl",), "flags": {"transformer_impl": "local"}}
ENGINE = {"given": ("transformer_impl",), "flags": {"transformer_impl": "transformer_engine"}}


@pytest.mark.parametrize(
    ("asked", "kind", "reason"),
    [
        ({}, "thd", "passed its trial"),
        ({"trial": "no answer within 180 s"}, "mask", "failed its trial: no answer"),
        ({"engine": False}, "mask", "not installed"),
        ({"device": "cpu"}, "mask", "CPU"),
        ({"asked": "mask"}, "mask", "as asked"),
        ({"asked": "thd", "trial": "not tried"}, "thd", "as asked"),
        ({"batching": "padded"}, "single", "one conversation"),
        (LOCAL, "mask", "--transformer-impl local"),
    ],
)
def test_what_is_chosen(asked: dict[str, Any], kind: str, reason: str) -> None:
    found = chosen(**asked)
    assert found.kind == kind
    assert reason in found.reason
    if kind == "mask":  # the fused softmax would ignore the mask
        assert set(found.flags) == {"--no-masked-softmax-fusion", "--transformer-impl=local"}


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"asked": "thd", "device": "cpu"}, UsageError, "--device cpu does not use"),
        ({"asked": "thd", **LOCAL}, UsageError, "--transformer-impl local does not use"),
        ({"asked": "thd", "engine": False}, DataError, "not installed"),
        ({"flags": {"micro_batch_size": 2}}, UsageError, "--micro-batch-size 2: .* one row"),
        ({"asked": "mask", **ENGINE}, UsageError, "takes no block-diagonal mask"),
        ({"trial": "hung", **ENGINE}, UsageError, r"takes no block-diagonal mask \(.*hung"),
        ({"asked": "mask", "flags": {"window_size": (3, 0)}}, UsageError, "--window-size"),
    ],
)
def test_what_cannot_be_is_never_given_up_silently(asked: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        chosen(**asked)


def test_every_way_is_known() -> None:
    assert ISOLATIONS == ("auto", "thd", "mask")
