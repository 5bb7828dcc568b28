"""The trial of packed attention: every way in which its process can end is an answer."""

from __future__ import annotations

import sys

import pytest

from sft_shards.trainer.isolation.trial import probe

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
    found = probe((sys.executable, "-c", code), seconds=1 if "sleep" in code else 60)
    assert found == said if not said else said in found


def test_the_trial_on_a_machine_without_transformer_engine() -> None:
    assert "Transformer Engine cannot be imported" in probe()
