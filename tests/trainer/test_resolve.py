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
from sft_shards.trainer.isolation import kernels
from sft_shards.trainer.isolation.consensus import failures_of_all
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
    monkeypatch.setattr(kernels, "missing", lambda kind: "")
    assert attention("te") == ["--attention-backend=fused"]
    assert attention("te", backend="flash") == ["--attention-backend=flash"]
    assert attention("te", backend="") == [], "not on AMD"
    assert attention("te", "attention_backend") == [], "the user has said it"
    assert attention("sdpa") == attention("flash") == [], "our own attention"
    old = Namespace(transformer_impl="transformer_engine")
    setup: Any = SimpleNamespace(job=Job(shards=("a",), attention="fused"), isolation=SimpleNamespace(kind="te"))
    assert resolve._attention(setup, Flags(argv=(), args=old, given=frozenset())) == [], "a Megatron without the flag"


def test_without_transformer_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "missing", lambda kind: "not installed")
    assert attention("sdpa") == ["--no-rope-fusion"]


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
    ("failed", "answers"),
    [
        (({}, {}), ({}, {})),
        (({}, {"te": "it hung"}), ({"te": "it hung (on node 1)"}, {"te": "it hung"})),
        (({"te": "aborted"}, {"te": "it hung"}), ({"te": "aborted"}, {"te": "aborted (on node 0)"})),
        (
            ({"te": "aborted"}, {"flash": "not there"}),
            (
                {"te": "aborted", "flash": "not there (on node 1)"},
                {"te": "aborted (on node 0)", "flash": "not there"},
            ),
        ),
    ],
)
def test_a_kind_that_failed_on_one_node_failed_on_all(
    failed: tuple[dict[str, str], ...], answers: tuple[dict[str, str], ...]
) -> None:
    alone = {"te": "it hung"}
    assert failures_of_all(alone, {}) == failures_of_all(alone, {"GROUP_WORLD_SIZE": "1"}) == alone
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    common = {"GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(server.port)}
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda rank: failures_of_all(
                failed[rank // 2], {**common, "GROUP_RANK": str(rank // 2), "LOCAL_RANK": str(rank % 2)}
            ),
            range(4),
        )
        assert list(found) == [answers[rank // 2] for rank in range(4)]
