"""Causal attention within segments of one row, by whatever this machine has.

Each kernel takes the queries, keys and values of a row and where its segments begin, and returns what attention gives
if every segment is alone:

    bounds 0 2 3:  positions 0 and 1 are one segment, position 2 another:  0 sees 0,  1 sees 0 1,  2 sees 2

- `flash`: flash-attn's `flash_attn_varlen_func`; on ROCm its kernels are from Composable Kernel or Triton.
- `torch`: `torch.nn.attention.varlen.varlen_attn`, in torch 2.10 and later.
- `sdpa`: `torch.nn.functional.scaled_dot_product_attention`, segment by segment; runs everywhere.

None of them computes scores between segments. `flash` and `torch` were never run on an AMD GPU by this project.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sft_shards.trainer.isolation.segments import Segments

TE = "te"
"""Transformer Engine's attention, which is no kernel here: its own layers call it."""
KERNELS = ("flash", "torch", "sdpa")
"""From the fastest to the one that runs everywhere."""
KINDS = (TE, *KERNELS)
"""All that can compute attention, from the one that is tried first."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What else attention takes."""

    scale: float
    """Scores are multiplied by it before the softmax."""
    dropout: float = 0.0
    """Share of the probabilities that are set to 0; 0 outside of training."""
    window: tuple[int, int] | None = None
    """How many positions before and behind itself one sees besides itself (-1: all); None: all before it."""


Kernel = Callable[[Any, Any, Any, Segments, Options], Any]
"""Of query [t, heads, d], key and value [t, groups, d]: returns [t, heads, d]; groups divides heads."""


def missing(name: str) -> str:
    """Return why this Python has none of a kind, or ""."""
    if name == TE and importlib.util.find_spec("transformer_engine") is None:
        return "Transformer Engine is not installed"
    if name == "flash" and importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    if name == "torch" and _torch_version() < (2, 10):
        return "torch has varlen_attn from 2.10 on"
    return ""


def _torch_version() -> tuple[int, int]:
    """Return the version of the installed torch, without importing it; (0, 0) where none is installed."""
    try:
        found = re.match(r"(\d+)\.(\d+)", version("torch"))
    except PackageNotFoundError:
        found = None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def absent() -> dict[str, str]:
    """Return why kinds are not installed, by kind."""
    return {kind: why for kind in KINDS if (why := missing(kind))}


def unsupported(name: str, *, dropout: bool, window: bool) -> str:
    """Return what a kernel cannot do of what a model asks for, or ""."""
    if name == "torch" and dropout:
        return "torch's varlen_attn has no dropout (--attention-dropout)"
    if name == "torch" and window and _torch_version() < (2, 11):
        return "torch's varlen_attn has a sliding window (--window-size) from 2.11 on"
    if name == "sdpa" and window:
        return "scaled_dot_product_attention has no sliding window (--window-size)"
    return ""


def load(name: str) -> Kernel:
    """Return a kernel by its name; ImportError where it is not installed."""
    loaders: dict[str, Callable[[], Kernel]] = {"flash": _flash, "torch": _torch, "sdpa": lambda: sdpa}
    return loaders[name]()


def sdpa(query: Any, key: Any, value: Any, segments: Segments, options: Options) -> Any:
    """Attend by `scaled_dot_product_attention`; segments of one length are computed together."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    assert options.window is None, "see `unsupported`"
    whole = [part.split(list(segments.lengths)) for part in (query, key, value)]
    numbers: dict[int, list[int]] = {}
    for number, length in enumerate(segments.lengths):
        numbers.setdefault(length, []).append(number)
    outputs: list[Any] = [None] * len(segments.lengths)
    grouped = query.shape[1] != key.shape[1]
    for alike in numbers.values():
        # [segments of this length, heads, length, d]
        q, k, v = (torch.stack([part[number] for number in alike]).transpose(1, 2) for part in whole)
        made = scaled_dot_product_attention(
            q, k, v, dropout_p=options.dropout, is_causal=True, scale=options.scale, enable_gqa=grouped
        )
        for number, output in zip(alike, made.transpose(1, 2).unbind(), strict=True):
            outputs[number] = output
    return torch.cat(outputs)


def _flash() -> Kernel:
    flash: Any = importlib.import_module("flash_attn").flash_attn_varlen_func

    def attend(query: Any, key: Any, value: Any, segments: Segments, options: Options) -> Any:
        longest = max(segments.lengths)
        return flash(
            query,
            key,
            value,
            segments.bounds,
            segments.bounds,
            longest,
            longest,
            dropout_p=options.dropout,
            softmax_scale=options.scale,
            causal=True,
            window_size=options.window or (-1, -1),
        )

    return attend


def _torch() -> Kernel:
    varlen: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    known = inspect.signature(varlen).parameters

    def attend(query: Any, key: Any, value: Any, segments: Segments, options: Options) -> Any:
        assert not options.dropout, "see `unsupported`"
        longest = max(segments.lengths)
        if "is_causal" in known:  # torch 2.10
            assert options.window is None
            causal: dict[str, Any] = {"is_causal": True}
        else:
            left = -1 if options.window is None else options.window[0]
            causal = {"window_size": (left, 0)}
        if query.shape[1] != key.shape[1]:
            if "enable_gqa" in known:
                causal["enable_gqa"] = True
            else:
                times = query.shape[1] // key.shape[1]
                key, value = (part.repeat_interleave(times, dim=1) for part in (key, value))
        if "scale" in known:
            causal["scale"] = options.scale
        else:  # it multiplies by 1 / sqrt(d)
            query = query * (options.scale * math.sqrt(query.shape[2]))
        return varlen(query, key, value, segments.bounds, segments.bounds, longest, longest, **causal)

    return attend
