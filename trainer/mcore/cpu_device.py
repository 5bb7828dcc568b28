"""Run Megatron's `pretrain()` on the CPU, for rehearsals and tests.

Megatron asks `torch.cuda` about its device and places every tensor on "cuda". `install()` answers for the CPU and
places every tensor there. It changes this process permanently and is called for `--device cpu` only. Arithmetic,
schedule, collectives (gloo), data and checkpoints are the real ones; speed, memory figures and fused kernels are not
those of a GPU.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Callable
from typing import Any

FORCED: dict[str, Any] = {
    "distributed-backend": "gloo",
    "transformer-impl": "local",  # Transformer Engine is GPU code
    "use-cpu-initialization": True,  # also: the same weights on every layout of TP and CP
    "no-gradient-accumulation-fusion": True,
    "no-masked-softmax-fusion": True,
    "no-bias-gelu-fusion": True,
    "no-bias-swiglu-fusion": True,
    "no-bias-dropout-fusion": True,
    "no-rope-fusion": True,
    "moe-grouped-gemm": False,  # a GPU kernel for all experts of a layer
    "num-workers": 0,  # the model needs the cores
}
"""Flags that keep Megatron from calling GPU kernels; they win over the user's. False removes a switch."""


def install() -> None:
    """Replace the GPU by the CPU in this process; call before Megatron is imported."""
    import torch
    from torch.overrides import TorchFunctionMode

    class OnCpu(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = dict(kwargs or {})
            if func is torch.Tensor.cuda:
                return args[0]
            if func is torch.Tensor.type and len(args) == 1 and not kwargs:
                # Megatron asserts on the name of the type, such as torch.cuda.FloatTensor
                return str(func(*args)).replace("torch.", "torch.cuda.", 1)
            if kwargs.get("pin_memory"):
                kwargs["pin_memory"] = False
            if kwargs.get("device") is not None:
                kwargs["device"] = _placed(kwargs["device"])
            return func(*(_placed(arg) for arg in args), **kwargs)

    def _placed(value: Any) -> Any:
        if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
            return "cpu"
        if isinstance(value, torch.device) and value.type == "cuda":
            return torch.device("cpu")
        return value

    # Replaced before the mode is entered, which would otherwise intercept torch.cuda's own functions.
    for name, answer in _answers().items():
        setattr(torch.cuda, name, answer)
    tensor: Any = torch.Tensor
    tensor.is_cuda = property(lambda self: True)
    tensor.pin_memory = lambda self, *args: self
    accelerator: Any = getattr(torch, "accelerator", None)
    if accelerator is not None:
        accelerator.is_available = lambda: False  # else the data loader pins memory
    mode: Any = OnCpu()
    mode.__enter__()
    _random_state()
    _router()
    _warm_up()


def _answers() -> dict[str, Any]:
    """Return replacements for the functions of `torch.cuda` that Megatron calls, by name."""
    import torch

    class Stream:
        cuda_stream = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Stream)  # there is only one stream

        def __hash__(self) -> int:
            return 0

        def record_event(self, *args: Any) -> Event:
            return Event()

        def __getattr__(self, name: str) -> Callable[..., None]:
            return _silent()

    class Event:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def query(self) -> bool:
            return True

        def elapsed_time(self, other: Any) -> float:
            return 0.0

        def __getattr__(self, name: str) -> Callable[..., None]:
            return _silent()

    @contextlib.contextmanager
    def inside(*args: Any, **kwargs: Any) -> Any:
        yield

    stream = Stream()
    memory = 64 << 30
    properties = types.SimpleNamespace(
        name="CPU", total_memory=memory, major=8, minor=0, multi_processor_count=os.cpu_count() or 1, warp_size=32
    )
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        "current_device": lambda: torch.device("cpu"),
        "get_device_name": lambda *args: "CPU",
        "get_device_properties": lambda *args: properties,
        "get_device_capability": lambda *args: (8, 0),
        "is_bf16_supported": lambda *args, **kwargs: True,
        "get_rng_state": lambda *args: torch.get_rng_state(),
        "set_rng_state": lambda state, *args: torch.set_rng_state(state),
        "initial_seed": lambda: torch.initial_seed(),
        "Stream": Stream,
        "Event": Event,
        "stream": inside,
        "device": inside,
        "current_stream": lambda *args: stream,
        "default_stream": lambda *args: stream,
        "mem_get_info": lambda *args: (memory, memory),
        "memory_stats": lambda *args: {},
        "memory_snapshot": lambda *args: [],
        "is_current_stream_capturing": lambda: False,
    }
    for name in (
        "set_device",
        "synchronize",
        "empty_cache",
        "manual_seed",  # torch.manual_seed calls both
        "manual_seed_all",
        "set_stream",
        "reset_peak_memory_stats",
        "ipc_collect",
        "_lazy_init",
        "_lazy_call",
    ):
        answers[name] = _silent()
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        answers[name] = lambda *args: 0
    answers["nvtx"] = types.SimpleNamespace(range_push=_silent(), range_pop=_silent(), mark=_silent(), range=inside)
    return answers


def _silent() -> Callable[..., None]:
    """Return a new function that does nothing; Dynamo keeps rules for each function object."""

    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    return nothing


def _random_state() -> None:
    """Let Megatron's random states, one for each parallel group, be states of the CPU generator."""
    import torch
    from megatron.core.tensor_parallel import random

    def get(*args: Any, **kwargs: Any) -> Any:
        return torch.get_rng_state()

    def put(new_state: Any, *args: Any, **kwargs: Any) -> None:
        torch.set_rng_state(new_state)

    random._get_cuda_rng_state = get
    random._set_cuda_rng_state = put


def _router() -> None:
    """Define a function that Megatron 0.14 to 0.16 compares with None but defines only with Transformer Engine."""
    from megatron.core.transformer.moe import moe_utils

    module: Any = moe_utils
    if not hasattr(module, "te_general_gemm"):
        module.te_general_gemm = None


def _warm_up() -> None:
    """Leave out Megatron's first calls of fused layers, which are off here.

    They take random numbers, as many as a rank has positions and hidden units, from the generator that weights are then
    initialised with: random weights would depend on TP, CP and the micro-batch. On a GPU these are two generators.
    """
    from megatron.training import initialize

    module: Any = initialize
    module._warmup_jit_function = _silent()
