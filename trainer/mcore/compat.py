"""The only file that knows Megatron's versions: how to reach its parser, its configuration and its `pretrain()`.

Sources: megatron/training/training.py, arguments.py and argument_utils.py of the tags core_v0.12.3 to core_v0.19.2.
What was run under which of them stands in docs/versions.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import linecache
import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.trainer.mcore import adamw_patch
from sft_shards.trainer.mcore.flags import Parser

OLDEST, NEWEST = (0, 12), (0, 19)
"""What was tried; newer ones are tried with a warning."""


def check_installed() -> None:
    """DataError where this Python has no Megatron that can train."""
    for package in ("torch", "megatron.core", "megatron.training", "psutil"):  # psutil: writes checkpoints
        try:
            found = importlib.util.find_spec(package) is not None
        except ImportError:
            found = False
        if not found:
            raise DataError(
                f"{package} is not installed for {sys.executable}; install it with \"pip install 'sft-shards[train]'\" "
                "(megatron-core 0.17 or later, Python 3.12 or later), or put a Megatron-LM checkout on PYTHONPATH"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Megatron's start-up chatter off the terminal: its table of 800 arguments and notes on absent kernels."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def parser() -> Parser:
    """Megatron's own parser, with nothing added."""
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
    """A warning about this version, or "".

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
    """Megatron's flags, validated by Megatron."""

    args: Namespace
    argv: tuple[str, ...]
    defaults: dict[str, Any]


def configure(argv: tuple[str, ...], defaults: dict[str, Any]) -> Configuration:
    """Let Megatron parse and validate `argv`; `defaults` fill what is None after parsing.

    Raises:
        UsageError: Megatron refuses the flags, in its own words.
    """
    from megatron.training import arguments

    try:
        with quiet(), _command_line(argv):
            if version() >= (0, 18):
                args: Namespace = arguments.parse_and_validate_args(args_defaults=defaults)
            else:  # validated for the sake of its errors: `pretrain` parses again
                args = arguments.validate_args(arguments.parse_args(), defaults)
            transformer_config(args)  # refuses shapes that do not divide; the model is built from it much later
            return Configuration(args=args, argv=argv, defaults=defaults)
    except (AssertionError, ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError) as error:
        raise UsageError(f"Megatron refuses the flags: {_words(error)}") from error


@contextlib.contextmanager
def _command_line(argv: tuple[str, ...]) -> Iterator[None]:
    saved = sys.argv
    sys.argv = ["sft-train", *argv]
    try:
        yield
    finally:
        sys.argv = saved


def _words(error: BaseException) -> str:
    """An exception in one line; for an assertion without words, the condition that did not hold and its values."""
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
    """Call Megatron's `pretrain()` with the keywords that this version has.

    Raises:
        UsageError: the checkpoint to go on from has another learning-rate schedule.
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
    except AssertionError as error:
        if "OptimizerParamScheduler" not in str(error):
            raise
        raise UsageError(
            f"--load {configuration.args.load}: its learning-rate schedule is another one ({_words(error)}); give the "
            "same --train-iters and --lr, or --override-opt-param-scheduler to go on with the new schedule"
        ) from error


def skip_compiling() -> None:
    """Keep Megatron from compiling its C++ data set helpers: these data sets need none of them.

    A wheel comes without the Makefile for it, and a checkout in a container is often read-only; either would end
    the process.
    """
    from megatron.core.datasets import utils

    utils.compile_helpers = lambda: None


def report(total: Any, count: Any) -> Any:
    """One entry of what a loss function reports, of which Megatron logs the mean over the world, token by token.

    From 0.13 a pair in one tensor, which Megatron sums over micro-batches and ranks; before, a tuple that it sums
    over micro-batches only, so the ranks are summed here.
    """
    import torch

    pair = torch.stack([total.float(), count.float()])
    if version() >= (0, 13):
        return pair
    from megatron.core import parallel_state

    torch.distributed.all_reduce(pair, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    return pair[0], pair[1]


def transformer_config(args: Namespace) -> Any:
    """The TransformerConfig that Megatron makes of its flags."""
    from megatron.training.arguments import core_transformer_config_from_args

    return core_transformer_config_from_args(args)


def accepted(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` whose names are parameters of `function`."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in known}
