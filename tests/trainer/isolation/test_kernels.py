"""Kernels: what each conversation would give alone, whatever shares its row."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_shards.trainer.isolation import kernels
from sft_shards.trainer.isolation.kernels import Options, load, missing, sdpa, unsupported
from sft_shards.trainer.isolation.segments import Segments

pytestmark = pytest.mark.unit


def segments(lengths: list[int]) -> Segments:
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    return Segments(bounds=bounds, lengths=tuple(lengths))


def by_hand(query: Any, key: Any, value: Any, lengths: list[int], scale: float) -> Any:
    """The definition of attention, one position and one head at a time."""
    out = torch.zeros(query.shape[0], query.shape[1], value.shape[2], dtype=query.dtype)
    times = query.shape[1] // key.shape[1]
    first = 0
    for length in lengths:
        for at in range(first, first + length):
            for head in range(query.shape[1]):
                seen = range(first, at + 1)
                scores = torch.stack([query[at, head] @ key[other, head // times] for other in seen]) * scale
                weights = scores.softmax(0)
                out[at, head] = sum(w * value[other, head // times] for w, other in zip(weights, seen, strict=True))
        first += length
    return out


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    groups=st.sampled_from([1, 2, 4]),
    scale=st.floats(0.05, 2),
    seed=st.integers(0, 9),
)
def test_sdpa_is_attention_within_each_segment(lengths: list[int], groups: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    shapes = [(sum(lengths), heads, 4) for heads in (4, groups, groups)]
    query, key, value = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    found = sdpa(query, key, value, segments(lengths), Options(scale=scale))
    assert torch.allclose(found, by_hand(query, key, value, lengths, scale), atol=1e-12)


def test_dropout_drops_in_sdpa() -> None:
    row = torch.ones(64, 2, 4)
    whole = sdpa(row, row, row, segments([64]), Options(scale=1.0))
    dropped = sdpa(row, row, row, segments([64]), Options(scale=1.0, dropout=0.5))
    assert torch.allclose(whole, row)
    assert not torch.allclose(dropped, row)


def test_flash_attention_gets_segments_scale_window_and_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def varlen(*args: Any, **options: Any) -> Any:
        called.update(options, bounds=args[3].tolist(), longest=args[5])
        return args[0]

    module: Any = ModuleType("flash_attn")
    module.flash_attn_varlen_func = varlen
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    row = torch.ones(5, 2, 4)
    load("flash")(row, row, row, segments([3, 2]), Options(scale=0.3, dropout=0.1, window=(7, 0)))
    assert called == {
        "bounds": [0, 3, 5],
        "longest": 3,
        "dropout_p": 0.1,
        "softmax_scale": 0.3,
        "causal": True,
        "window_size": (7, 0),
    }


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("is_causal=False", {"is_causal": True}),
        ("is_causal=False, scale=None", {"is_causal": True, "scale": 0.25}),
        (
            "scale=None, window_size=(-1, -1), enable_gqa=False",
            {"scale": 0.25, "window_size": (7, 0), "enable_gqa": True},
        ),
    ],
)
def test_torch_is_called_as_its_version_asks(
    monkeypatch: pytest.MonkeyPatch, parameters: str, expected: dict[str, Any]
) -> None:
    """Torch 2.10 has no scale, window and groups; later ones have no `is_causal`."""
    called: dict[str, Any] = {}
    scope: dict[str, Any] = {"called": called}
    code = f"def varlen_attn(q, k, v, a, b, c, d, *, {parameters}):\n    called.update(locals())\n    return q"
    exec(code, scope)
    module: Any = ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = scope["varlen_attn"]
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    query, key = torch.ones(5, 4, 16), torch.ones(5, 2, 16)
    window = (7, 0) if "window_size" in parameters else None
    load("torch")(query, key, key, segments([3, 2]), Options(scale=0.25, window=window))
    assert {name: called[name] for name in expected} == expected
    assert (called["a"].tolist(), called["c"]) == ([0, 3, 5], 3)
    assert called["k"].shape[1] == (2 if "enable_gqa" in parameters else 4)
    by_itself = 1 if "scale" in parameters else 0.25 * math.sqrt(16)
    assert torch.equal(called["q"], query * by_itself)


def test_what_is_not_there_or_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("sdpa") == ""
    assert "not installed" in missing("flash")
    monkeypatch.setattr(kernels, "version", lambda name: "2.9.1+rocm6.4")
    assert "2.10" in missing("torch")
    monkeypatch.setattr(kernels, "version", lambda name: "2.10.0")
    assert missing("torch") == ""
    assert "sliding window (--window-size) from 2.11 on" in unsupported("torch", dropout=False, window=True)
    monkeypatch.setattr(kernels, "version", lambda name: "2.11.0")
    assert unsupported("torch", dropout=False, window=True) == ""
    assert "no dropout" in unsupported("torch", dropout=True, window=False)
    assert "no sliding window" in unsupported("sdpa", dropout=False, window=True)
    assert unsupported("flash", dropout=True, window=True) == unsupported("sdpa", dropout=True, window=False) == ""
    assert set(kernels.absent()) == {"te", "flash"}
