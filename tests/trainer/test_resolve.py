"""Flags that follow from the machine: who computes attention, and what a signal does."""

from __future__ import annotations

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import TCPStore

from sft_shards.formats.errors import UsageError
from sft_shards.trainer import resolve
from sft_shards.trainer.isolation.consensus import trial_of_all
from sft_shards.trainer.job import Job
from sft_shards.trainer.mcore.flags import Flags

pytestmark = pytest.mark.unit


def resolved(given: set[str], **args: Any) -> Flags:
    known = {"transformer_impl": "transformer_engine", "apply_rope_fusion": True, "attention_backend": "auto"}
    return Flags(argv=(), args=Namespace(**{**known, **args}), given=frozenset(given))


def attention(kind: str, *given: str, backend: str = "fused", **args: Any) -> list[str]:
    setup: Any = SimpleNamespace(job=Job(shards=("a",), attention=backend), isolation=SimpleNamespace(kind=kind))
    return resolve._attention(setup, resolved(set(given), **args))


def test_attention_is_asked_for_where_transformer_engine_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "has_transformer_engine", lambda: True)
    assert attention("thd") == attention("single") == ["--attention-backend=fused"]
    assert attention("thd", backend="flash") == ["--attention-backend=flash"]
    assert attention("thd", backend="") == [], "not on AMD"
    assert attention("thd", "attention_backend") == [], "the user has said it"
    assert attention("mask") == attention("single", transformer_impl="local") == [], "Megatron's own attention"
    old = Namespace(transformer_impl="transformer_engine")
    setup: Any = SimpleNamespace(job=Job(shards=("a",), attention="fused"), isolation=SimpleNamespace(kind="thd"))
    assert resolve._attention(setup, Flags(argv=(), args=old, given=frozenset())) == [], "a Megatron without the flag"


def test_without_transformer_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "has_transformer_engine", lambda: False)
    assert attention("single") == ["--no-rope-fusion", "--transformer-impl=local"]
    assert attention("mask") == attention("single", "transformer_impl") == ["--no-rope-fusion"]


def test_gradients_are_added_up_in_a_kernel_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve.importlib.util, "find_spec", lambda name: None)
    assert resolve._gradients(resolved(set())) == ["--no-gradient-accumulation-fusion"]
    assert resolve._gradients(resolved({"gradient_accumulation_fusion"})) == [], "the user has said it"
    monkeypatch.setattr(resolve.importlib.util, "find_spec", lambda name: name)
    assert resolve._gradients(resolved(set())) == []


def test_a_run_that_saves_saves_when_told_to_stop() -> None:
    known = {"exit_signal_handler": False}
    assert resolve._signals(resolved(set(), save="out", **known)) == ["--exit-signal-handler"]
    assert resolve._signals(resolved(set(), save=None, **known)) == []
    assert resolve._signals(resolved(set(), save="out")) == [], "a Megatron without the flag"
    with pytest.raises(UsageError, match="--exit-signal: "):
        resolve._signals(resolved({"exit_signal"}, save="out", **known))


@pytest.mark.parametrize(
    ("trials", "answers"),
    [
        (["", ""], ["", "", "", ""]),
        (["", "it hung"], ["it hung (on node 1)", "it hung (on node 1)", "it hung", "it hung"]),
        (["aborted", "it hung"], ["aborted", "aborted", "aborted (on node 0)", "aborted (on node 0)"]),
    ],
)
def test_a_trial_that_failed_on_one_node_failed_on_all(trials: list[str], answers: list[str]) -> None:
    assert trial_of_all("it hung", {}) == trial_of_all("it hung", {"GROUP_WORLD_SIZE": "1"}) == "it hung"
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    common = {"GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(server.port)}
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda rank: trial_of_all(
                trials[rank // 2], {**common, "GROUP_RANK": str(rank // 2), "LOCAL_RANK": str(rank % 2)}
            ),
            range(4),
        )
        assert list(found) == answers
