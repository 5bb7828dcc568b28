"""The trial of packed attention: every way in which its process can end is an answer."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from sft_shards.trainer.isolation import trial
from sft_shards.trainer.isolation.kernels import Options, sdpa
from sft_shards.trainer.isolation.trial import difference, failures, probe

pytestmark = pytest.mark.process


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
    found = probe("sdpa", command=(sys.executable, "-c", code), seconds=1 if "sleep" in code else 60)
    assert found == said if not said else said in found


def test_the_trial_on_a_machine_without_transformer_engine() -> None:
    assert "cannot be imported (ModuleNotFoundError: No module named 'transformer_engine')" in probe("te")


def test_the_first_that_is_right_ends_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def answer(kind: str, **_: object) -> str:
        tried.append(kind)
        return "it hung" if kind in ("te", "sdpa") else ""

    monkeypatch.setattr(trial, "probe", answer)
    assert failures(["te", "flash", "sdpa"]) == {"te": "it hung"}
    assert tried == ["te", "flash"]
    assert failures(["te", "flash", "sdpa"], every=True) == {"te": "it hung", "sdpa": "it hung"}


def test_the_trial_sees_a_wrong_kernel() -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    def leaking(query: Any, key: Any, value: Any, _: object, options: Options) -> Any:
        """Attend as if the row was one segment."""
        q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
        made = scaled_dot_product_attention(q, k, v, is_causal=True, scale=options.scale, enable_gqa=True)
        return made[0].transpose(0, 1)

    assert difference(sdpa, device="cpu", dtype=torch.float32) < 1e-5
    assert difference(sdpa, device="cpu", dtype=torch.bfloat16) < 0.1
    assert difference(leaking, device="cpu", dtype=torch.float32) > 0.5
