"""How conversations are kept apart: what is chosen, what is refused, and what the attention is told."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

import pytest
import torch

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.isolation.choose import ISOLATIONS, Isolation, block_mask, choose, packed_seq_params, probe


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
        ({"asked": "thd", "device": "cpu"}, UsageError, "--device cpu does without"),
        ({"asked": "thd", **LOCAL}, UsageError, "--transformer-impl local does without"),
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


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('ok')", ""),
        ("import os; os.abort()", "ended by signal 6"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("print('segments differ by 3'); raise SystemExit(1)", "segments differ by 3"),
        ("raise RuntimeError('HIP error')", "HIP error"),
        ("pass", "exit status 0"),
    ],
)
def test_a_trial_that_hangs_or_aborts_is_an_answer(code: str, said: str) -> None:
    found = probe((sys.executable, "-c", code), seconds=1 if "sleep" in code else 60)
    assert found == said if not said else said in found


def test_the_trial_on_a_machine_without_transformer_engine() -> None:
    assert "Transformer Engine cannot be imported" in probe()


POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 0]])


def test_the_mask_is_causal_within_a_conversation() -> None:
    mask = block_mask(POSITIONS)
    assert mask.shape == (2, 1, 6, 6)
    segments = [[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 1]]
    for row, segment in enumerate(segments):
        for query in range(6):
            for key in range(6):
                seen = key <= query and segment[key] == segment[query]
                assert bool(mask[row, 0, query, key]) is not seen


@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
def test_packed_attention_is_told_where_each_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, non_blocking=False: self)
    params = packed_seq_params(POSITIONS[:1])
    assert params.qkv_format == "thd"
    assert params.cu_seqlens_q.tolist() == params.cu_seqlens_kv.tolist() == [0, 3, 5, 6]
    assert params.cu_seqlens_q.dtype == torch.int32
    assert (params.max_seqlen_q, params.max_seqlen_kv) == (3, 3)
    with pytest.raises(AssertionError):
        packed_seq_params(POSITIONS)


def test_every_way_is_known() -> None:
    assert ISOLATIONS == ("auto", "thd", "mask")
