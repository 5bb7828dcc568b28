"""The text of the file that `--template` names: only planning needs it, and a job that goes on has it already."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.formats.templates import is_template_file, read_template
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.tasks.output import OutputState, look
from sft_shards.preprocess.tasks.plan import Plan


def template_text(config: JobConfig, output: Path) -> str | None:
    """Return the text of the template file; where it is gone, what a job at `output` with a file of this name kept.

    Returns:
        None where `--template` names no file.

    Raises:
        UsageError: the file is gone and nothing was kept, or it cannot be used.
    """
    if not is_template_file(config.template):
        return None
    kept = None if Path(config.template).exists() else _kept(Path(config.template).name, output)
    return read_template(config.template) if kept is None else kept


def planned_config(config: JobConfig, source: str | None) -> JobConfig:
    """Return a configuration as plan and manifest hold it: a template file by its bare name."""
    return config if source is None else replace(config, template=Path(config.template).name)


def _kept(name: str, output: Path) -> str | None:
    state = look(output)
    with suppress(UsageError, DataError):  # whoever goes on there says what is wrong with it
        if state.is_complete:
            template = Manifest.read(output).template
            return template.source if template.file == name else None
        if state is OutputState.PLANNED:
            plan = Plan.read(output)
            return plan.template_source if plan.template == name else None
    return None
