"""How conversations are kept apart: what is chosen, and what is refused."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.isolation.choose import ISOLATIONS, Isolation, choose

pytestmark = pytest.mark.unit


def chosen(*, given: tuple[str, ...] = (), flags: dict[str, Any] | None = None, **asked: Any) -> Isolation:
    usual = {
        "transformer_impl": "transformer_engine",
        "micro_batch_size": 1,
        "pipeline_model_parallel_size": 1,
        "window_size": None,
        "attention_dropout": 0.0,
        "context_parallel_size": 1,
        "tensor_model_parallel_size": 1,
        "num_attention_heads": 8,
    }
    options = {"asked": "auto", "batching": "packed", "device": "gpu", "failures": {}, **asked}
    return choose(args=Namespace(**{**usual, **(flags or {})}), given=frozenset(given), **options)


LOCAL = {"given": ("transformer_impl",), "flags": {"transformer_impl": "local"}}
ENGINE = {"given": ("transformer_impl",), "flags": {"transformer_impl": "transformer_engine"}}
PP2 = {"pipeline_model_parallel_size": 2}
CP4 = {"context_parallel_size": 4}
WITHOUT_TE = {"te": "it hung"}


@pytest.mark.parametrize(
    ("asked", "kind", "reason"),
    [
        ({}, "te", "the first choice"),
        ({"failures": WITHOUT_TE}, "flash", "te: it hung"),
        ({"failures": {**WITHOUT_TE, "flash": "not installed"}}, "torch", "te: it hung; flash: not installed"),
        ({"failures": dict.fromkeys(("te", "flash", "torch"), "gone")}, "sdpa", "torch: gone"),
        ({"device": "cpu"}, "sdpa", "the CPU has no other"),
        ({"asked": "sdpa"}, "sdpa", "as asked"),
        ({"asked": "te"}, "te", "as asked"),
        ({"asked": "thd"}, "te", "as asked"),
        ({"asked": "mask"}, "sdpa", "as asked"),
        ({"batching": "padded"}, "te", "the first choice"),
        ({"batching": "padded", "flags": {**PP2, "micro_batch_size": 4}}, "te", "the first choice"),
        ({"flags": {"micro_batch_size": 4}}, "te", "the first choice"),
        (LOCAL, "flash", "te: --transformer-impl local"),
        ({"flags": CP4}, "te", "the first choice; its trial was on one GPU"),
        ({"asked": "te", "flags": CP4}, "te", "as asked; its trial was on one GPU"),
        ({"flags": CP4, "device": "cpu"}, "sdpa", "the CPU has no other"),
        ({"flags": {**CP4, "num_attention_heads": 6}}, "te", "the first choice"),
        (
            {"flags": {**CP4, "window_size": (3, 0)}},
            "flash",
            "te: it has no --window-size with --context-parallel-size",
        ),
        ({"failures": WITHOUT_TE, "flags": {"window_size": (3, 0)}}, "flash", "te: it hung"),
        ({"failures": {"te": "x", "flash": "x"}, "flags": {"attention_dropout": 0.1}}, "sdpa", "no dropout"),
    ],
)
def test_what_is_chosen(asked: dict[str, Any], kind: str, reason: str) -> None:
    found = chosen(**asked)
    assert found.kind == kind
    assert reason in found.reason
    assert found.packed is (asked.get("batching") != "padded")
    assert found.flags == (() if kind == "te" else ("--transformer-impl=local",))
    assert found.kernel == ("sdpa" if kind == "te" else kind)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"asked": "te", "device": "cpu"}, UsageError, "--isolation te: --device cpu does not use"),
        ({"asked": "flash", "device": "cpu"}, UsageError, "--isolation flash: --device cpu has no such kernel"),
        ({"asked": "te", **LOCAL}, UsageError, "--transformer-impl local does not use"),
        ({"asked": "te", "failures": {"te": "not installed"}}, DataError, "te: not installed; .* sdpa"),
        ({"asked": "flash", "failures": {"flash": "it hung"}}, DataError, "--isolation flash: it hung"),
        ({"flags": {**PP2, "micro_batch_size": 2}}, UsageError, "--micro-batch-size 2: .* one packed row"),
        ({"flags": {**PP2, "eval_micro_batch_size": 2}}, UsageError, "--eval-micro-batch-size 2: .* one packed row"),
        ({"asked": "sdpa", **ENGINE}, UsageError, "has an attention of its own"),
        ({"asked": "sdpa", "flags": {"window_size": (3, 0)}}, UsageError, "no sliding window"),
        ({"asked": "torch", "flags": {"attention_dropout": 0.1}}, UsageError, "no dropout"),
        ({"asked": "sdpa", "flags": {"softmax_type": "learnable"}}, UsageError, "--softmax-type learnable"),
        (
            {"device": "cpu", "flags": {**CP4, "num_attention_heads": 6}},
            UsageError,
            "6 attention heads do not divide by TP 1 x CP 4.* use --context-parallel-size 2",
        ),
        ({"asked": "sdpa", "flags": {**CP4, "attention_dropout": 0.1}}, UsageError, "drop alike on all ranks"),
        ({"asked": "sdpa", "flags": CP4, "given": ("cp_comm_type",)}, UsageError, "--cp-comm-type is for Transformer"),
        ({"device": "cpu", "flags": {"window_size": (3, 0)}}, UsageError, "no attention can be used .*sliding window"),
    ],
)
def test_what_cannot_be_is_never_given_up_silently(asked: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        chosen(**asked)


def test_every_way_is_known() -> None:
    assert ISOLATIONS == ("auto", "te", "flash", "torch", "sdpa", "thd", "mask")
