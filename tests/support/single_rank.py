"""Run a job in this process, as its only rank, and keep hold of the model."""

from __future__ import annotations

import os
import socket
from typing import Any

from sft_shards.trainer import worker
from sft_shards.trainer.job import Job
from sft_shards.trainer.launch import cpu, environment, launcher
from sft_shards.trainer.mcore import compat
from sft_shards.trainer.model import provider
from sft_shards.trainer.model.start import providing


def alone(job: Job) -> None:
    """The environment that torchrun would give to a single worker."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment.apply(environment.plan({**cpu.wanted(2, 1), **launcher.WARNINGS}, {}), os.environ)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost", MASTER_PORT=str(port))
    assert job.device == "cpu"


def train(job: Job) -> Any:
    """Through the real `pretrain()`; the trained GPTModel."""
    alone(job)
    built = []

    def keep(*args: Any, **kwargs: Any) -> Any:
        built.append(provide(*args, **kwargs))
        return built[-1]

    provide, provider.model_provider = provider.model_provider, keep
    worker.run(job)
    return built[-1].eval()


def build(job: Job) -> tuple[Any, Any]:
    """The untrained model, and the data set provider of the job."""
    alone(job)
    configuration, data_sets, start = worker.prepare(job)
    from megatron.core.enums import ModelType
    from megatron.training.initialize import initialize_megatron
    from megatron.training.training import get_model

    compat.skip_compiling()
    initialize_megatron()
    (built,) = get_model(providing(provider.model_provider, start), ModelType.encoder_or_decoder, wrap_with_ddp=False)
    assert configuration.args.padded_vocab_size == 128
    return built, data_sets
