"""A whole job on one machine: plan, tasks, finalize. Run again, it goes on where it was stopped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from formats.errors import DataError, UsageError
from formats.shards import Manifest
from formats.shards.manifest import NAME
from preprocess.config import JobConfig
from preprocess.engines import run_local
from preprocess.finalize import finalize
from preprocess.pipeline import load_template
from preprocess.plan import WORK, Plan, make_plan
from preprocess.tokenizer import Tokenizer


def prepare_output(output: Path, *, overwrite: bool) -> None:
    """Make the output folder, or see that the one there is ours to go on in.

    Raises:
        UsageError: it holds a complete shard directory, or something that is none.
        DataError: it cannot be written.
    """
    complete, unfinished = (output / NAME).exists(), (output / WORK).exists()
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file; choose another --output")
    if overwrite and (complete or unfinished):
        shutil.rmtree(output)
    elif complete:
        raise UsageError(
            f"{output}: already holds a complete shard directory; choose another --output, or give --overwrite"
        )
    elif output.is_dir() and not unfinished and any(output.iterdir()):
        raise UsageError(f"{output}: exists and is not a shard directory; choose another --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror}); choose another --output") from None


def check_output(output: Path, config: JobConfig) -> None:
    """Refuse an output that lies inside of an input folder, where the next run would read it."""
    for given in config.inputs:
        if Path(given).is_dir() and output.resolve().is_relative_to(Path(given).resolve()):
            raise UsageError(f"{output}: lies inside of the input folder {given}; choose another --output")


def run(
    config: JobConfig, output: Path, *, workers: int, overwrite: bool = False, max_rejects: str | None = None
) -> tuple[Plan, Manifest]:
    """Run a job from raw files to a complete shard directory.

    Raises:
        UsageError: the call is wrong; nothing was written.
        DataError: something is wrong with the data or the machine; nothing was published.
    """
    check_output(output, config)
    tokenizer = Tokenizer(config.tokenizer, trust_remote_code=config.trust_remote_code)
    tokenizer.info()
    plan = make_plan(config, tokenizer)
    load_template(plan.template, tokenizer)  # refuse a template that cannot be used before anything is written
    prepare_output(output, overwrite=overwrite)
    try:
        plan.write(output)
        run_local(plan, output, tokenizer, workers)
        return plan, finalize(plan, output, tokenizer, max_rejects=max_rejects)
    except OSError as error:
        raise DataError(
            f"{output}: {error.strerror or error}; free the disk or mend its rights, then run again"
        ) from None
