"""Below HIP 7.1 Megatron saves from ordinary memory; above, and on other GPUs, it is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from sft_shards.trainer.mcore import hip

pytestmark = pytest.mark.megatron


class Copied:
    """A tensor that notes how it was copied."""

    def __init__(self) -> None:
        self.pinned: list[bool] = []

    def to(self, device: str, non_blocking: bool) -> Copied:
        self.pinned.append(non_blocking)
        return self

    def detach(self) -> Copied:
        return self


@pytest.mark.parametrize(
    ("version", "pinned"), [("6.4.43482", False), ("7.0.1", False), ("7.1.0", True), ("7.2", True), (None, True)]
)
def test_copies_before_a_fork(version: str | None, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    writer: Any = filesystem_async.FileSystemWriterAsync
    monkeypatch.setattr(writer, "preload_tensors", staticmethod(writer.preload_tensors))
    assert hip.save_without_pinned_memory(version) == ""
    tensor = Copied()
    writer.preload_tensors([("file", "key", ([], [("item", tensor)]))], True)
    assert tensor.pinned == [pinned]


def test_a_megatron_that_copies_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    writer: Any = filesystem_async.FileSystemWriterAsync
    monkeypatch.setattr(writer, "preload_tensors", staticmethod(lambda buckets: buckets))
    assert "saving may crash" in hip.save_without_pinned_memory("6.4")
    assert hip.save_without_pinned_memory("7.1") == ""
