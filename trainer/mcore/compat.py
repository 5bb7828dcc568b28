"""Reach Megatron's parser, configuration and `pretrain()` in every supported version.

This is the only file that compares Megatron's versions or inspects its signatures. Three others depend on versions in
another way: `flags` asks Megatron's parser which flags there are, and `cpu_device` and `adamw_patch` replace functions
by name and say in which versions. Sources: megatron/training/training.py, arguments.py and argument_utils.py of tags
core_v0.12.3 to core_v0.19.2. docs/versions.md lists what was run with which version.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import inspect
import io
import linecache
import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.mcore import adamw_patch, resume_errors
from sft_shards.trainer.mcore.flags import Parser

ROCM_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/rocm7.2"
"""The usual index has torch for other GPUs, with gigabytes of their libraries; docs/install.md."""
INSTALL = "pip install 'sft-shards[train-torch]'"
"""Adds Megatron, and keeps a torch that is installed."""
OLDEST, NEWEST = (0, 12), (0, 19)
"""The versions that were run, as (major, minor); newer ones are used with a warning."""


def check_installed() -> None:
    """Raise DataError if this Python has no Megatron with `pretrain()`; nothing heavy is imported."""
    remedies = {
        "torch": f'for AMD GPUs: "{ROCM_TORCH}", without a GPU the same with /cpu in place of /rocm7.2',
        "megatron.core": f'"{INSTALL}" (megatron-core 0.17 or later, Python 3.12 or later) keeps the torch that is '
        "installed; or put a Megatron-LM checkout on PYTHONPATH",
        "psutil": "\"pip install 'sft-shards[train]'\": Megatron writes checkpoints with it",
    }
    remedies["megatron.training"] = remedies["megatron.core"]
    for package in ("torch", "megatron.core", "megatron.training", "psutil"):
        try:
            found = importlib.util.find_spec(package) is not None
        except ImportError:
            found = False
        if not found:
            raise DataError(f"{package} is not installed for {sys.executable}; {remedies[package]} (docs/install.md)")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and standard output, such as Megatron's table of 800 arguments and notes on missing kernels."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be looked for among what is imported, now and when the process ends.

    Torch and Megatron make 700,000 objects that live as long as the process; to look at them takes a second in all.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Let `torch.compile` give functions as they are, while modules of Megatron's are imported whose code is not run.

    Its decorators import torch's compiler, for a second, even where `TORCHDYNAMO_DISABLE` keeps it from compiling.
    """
    import torch

    saved = torch.compile

    def unchanged(function: Any = None, **_: Any) -> Any:
        return (lambda decorated: decorated) if function is None else function

    torch.compile = unchanged  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = saved


@contextlib.contextmanager
def without_transformers() -> Iterator[None]:
    """Make transformers look uninstalled: from 0.17 on, Megatron imports it with its tokenizers, for a second.

    Without it all of them can be imported, and `NullTokenizer` be made. Once imported, it stays.
    """
    if version() < (0, 17) or "transformers" in sys.modules:
        yield
        return
    sys.modules["transformers"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["transformers"]


def parser() -> Parser:
    """Return Megatron's own parser, with nothing added."""
    with quiet():
        from megatron.training.arguments import add_megatron_arguments
    made = Parser(prog="sft-train", allow_abbrev=False, add_help=False)
    with quiet():
        add_megatron_arguments(made)
    return made


def parse_version(text: str) -> tuple[int, int] | None:
    """Return the major and minor number at the beginning of a version such as `0.19.2rc1`; None if there is none."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def version() -> tuple[int, int]:
    """Return the major and minor version of the Megatron that is imported."""
    import megatron.core

    found = parse_version(megatron.core.__version__)
    assert found is not None, megatron.core.__version__
    return found


def support(version: str) -> Literal["too old", "tested", "untested"]:
    """Say whether a version of Megatron can be used; `untested` are those newer than any that was run."""
    found = parse_version(version)
    return "untested" if found is None or found > NEWEST else "too old" if found < OLDEST else "tested"


def check_version() -> str:
    """Return a warning about the Megatron that is imported, or "".

    Raises:
        DataError: it is too old.
    """
    import megatron.core

    found = ".".join(map(str, version()))
    oldest, newest = ".".join(map(str, OLDEST)), ".".join(map(str, NEWEST))
    supported = support(megatron.core.__version__)
    if supported == "too old":
        raise DataError(f"Megatron {found} is too old; {oldest} or later is needed")
    if supported == "untested":
        return f"Megatron {found} is newer than any that was tried ({newest}); going on"
    return ""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Flags that Megatron has validated."""

    args: Namespace
    """Megatron's arguments after validation."""
    argv: tuple[str, ...]
    """The command line that they were parsed from; Megatron before 0.18 parses it again."""
    defaults: Mapping[str, Any]
    """Values for arguments that are None after parsing."""


def configure(argv: tuple[str, ...], defaults: Mapping[str, Any]) -> Configuration:
    """Let Megatron parse and validate `argv`, which sets its global state.

    Args:
        argv: the command line, without a program name.
        defaults: values for arguments that are None after parsing.

    Raises:
        UsageError: Megatron refuses the flags; the message is Megatron's.
    """
    with quiet():
        from megatron.training import arguments
    try:
        with quiet(), _command_line(argv):
            if version() >= (0, 18):
                args: Namespace = arguments.parse_and_validate_args(args_defaults=dict(defaults))
            else:  # for its errors only: `pretrain` parses and validates again
                args = arguments.validate_args(arguments.parse_args(), dict(defaults))
            transformer_config(args)  # refuses sizes that do not divide now, and not when the model is built
            return Configuration(args=args, argv=argv, defaults=defaults)
    except (AssertionError, ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError) as error:
        raise UsageError(f"Megatron refuses the flags: {_one_line(error)}") from error


@contextlib.contextmanager
def _command_line(argv: tuple[str, ...]) -> Iterator[None]:
    saved = sys.argv
    sys.argv = ["sft-train", *argv]
    try:
        yield
    finally:
        sys.argv = saved


def _one_line(error: BaseException) -> str:
    """Return an exception in one line; for an assertion without a message its condition, and the values in it."""
    text = " ".join(str(error).split())
    if text:
        return text
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return type(error).__name__
    line = linecache.getline(frame.tb_frame.f_code.co_filename, frame.tb_lineno).strip().rstrip(",\\ ")
    args = frame.tb_frame.f_locals.get("args")
    values = [f"{name} is {getattr(args, name)}" for name in re.findall(r"\bargs\.(\w+)", line) if hasattr(args, name)]
    return f"{line} ({', '.join(values)})" if values else line


def pretrain(
    configuration: Configuration,
    *,
    provider: Callable[..., Any],
    model_provider: Callable[..., Any],
    forward_step: Callable[..., Any],
) -> None:
    """Call Megatron's `pretrain()` with the keywords of this version.

    Args:
        provider: the data set provider.
        model_provider, forward_step: what Megatron calls by these names.

    Raises:
        UsageError: the checkpoint at --load has another learning-rate schedule or optimizer.
    """
    from megatron.core.enums import ModelType
    from megatron.training import pretrain as megatron_pretrain

    skip_compiling()
    adamw_patch.repair()
    wanted = {
        "train_valid_test_dataset_provider": provider,
        "model_provider": model_provider,
        "model_type": ModelType.encoder_or_decoder,
        "forward_step_func": forward_step,
    }
    known = inspect.signature(megatron_pretrain).parameters
    if "cfg_container" in known:  # 0.18
        from megatron.training.argument_utils import pretrain_cfg_container_from_args

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # recommends a model configuration that older versions do not have
            wanted["cfg_container"] = pretrain_cfg_container_from_args(configuration.args)
    else:
        wanted["args_defaults"] = configuration.defaults
    missing = [name for name in wanted if name not in known]
    assert not missing, f"pretrain() has no {missing} in this version"
    try:
        with _command_line(configuration.argv):
            megatron_pretrain(**wanted)
    except resume_errors.RESUME as error:
        if (explained := resume_errors.explain(error, configuration.args.load)) is None:
            raise
        raise UsageError(explained) from error


def skip_compiling() -> None:
    """Keep Megatron from compiling its C++ data set helpers, which our data sets do not use.

    A wheel has no Makefile for them, and a checkout in a container is often read-only; compiling would end the process.
    """
    from megatron.core.datasets import utils

    utils.compile_helpers = lambda: None


def report(total: Any, count: Any) -> Any:
    """Return one entry of a loss function's report, of which Megatron logs total / count over all ranks.

    From 0.13 on an entry is one tensor (total, count), which Megatron sums over micro-batches and ranks. Before, it is
    a tuple that Megatron sums over micro-batches only, so it is summed over the data-parallel ranks here.

    Args:
        total: scalar tensor, the sum of losses.
        count: scalar tensor, the number of tokens.
    """
    import torch

    pair = torch.stack([total.float(), count.float()])
    if version() >= (0, 13):
        return pair
    from megatron.core import parallel_state

    torch.distributed.all_reduce(pair, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    return pair[0], pair[1]


def transformer_config(args: Namespace) -> Any:
    """Return the TransformerConfig that Megatron makes of its arguments."""
    from megatron.training.arguments import core_transformer_config_from_args

    return core_transformer_config_from_args(args)


def accepted(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return those of `values` whose names are parameters of `function` in this version."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in known}


def consumed_samples() -> int:
    """Return the training samples that the checkpoint, if one was loaded, says are consumed."""
    from megatron.training import get_args

    return int(get_args().consumed_train_samples)
