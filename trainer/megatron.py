"""The only file that knows Megatron's versions: how to reach its parser, its configuration and its `pretrain()`.

Sources: megatron/training/training.py, arguments.py and argument_utils.py of the tags core_v0.17.0 to core_v0.19.2.
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
from typing import Any

from formats.errors import DataError, UsageError
from trainer.flags import Parser


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
                "(megatron-core 0.17 or later, Python 3.12 or later)"
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


def configure(argv: tuple[str, ...], defaults: dict[str, Any]) -> Namespace:
    """Let Megatron parse and validate `argv`; `defaults` fill what is None after parsing.

    Raises:
        UsageError: Megatron refuses the flags, in its own words.
    """
    from megatron.training.arguments import parse_and_validate_args

    saved = sys.argv
    sys.argv = ["sft-train", *argv]
    try:
        with quiet():
            args: Namespace = parse_and_validate_args(args_defaults=defaults)
            transformer_config(args)  # refuses shapes that do not divide; the model is built from it much later
            return args
    except (AssertionError, ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError) as error:
        raise UsageError(f"Megatron refuses the flags: {_words(error)}") from error
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
    args: Namespace,
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
            wanted["cfg_container"] = pretrain_cfg_container_from_args(args)
    missing = [name for name in wanted if name not in known]
    assert not missing, f"pretrain() has no {missing} in this version"
    try:
        megatron_pretrain(**wanted)
    except AssertionError as error:
        if "OptimizerParamScheduler" not in str(error):
            raise
        raise UsageError(
            f"--load {args.load}: its learning-rate schedule is another one ({_words(error)}); give the same "
            "--train-iters and --lr, or --override-opt-param-scheduler to go on with the new schedule"
        ) from error


def skip_compiling() -> None:
    """Leave the C++ helpers as they are where they can be imported.

    The wheel holds them built but without the Makefile that `compile_helpers` runs, which ends the process.
    """
    if importlib.util.find_spec("megatron.core.datasets.helpers_cpp") is not None:
        from megatron.core.datasets import utils

        utils.compile_helpers = lambda: None


def transformer_config(args: Namespace) -> Any:
    """The TransformerConfig that Megatron makes of its flags."""
    from megatron.training.arguments import core_transformer_config_from_args

    return core_transformer_config_from_args(args)


def accepted(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` whose names are parameters of `function`."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in known}
