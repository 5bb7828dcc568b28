"""`SAVE/hf/`: what an export needs besides weights, written beside the checkpoints when training starts.

    SAVE/hf/config.json               as the model came
    SAVE/hf/tokenizer.json …          the shards' tokenizer, not the model folder's: it is what was trained on
    SAVE/hf/chat_template.jinja       the template of the shards; in additional_chat_templates/ its other one for tools
    SAVE/hf/chat_template_kwargs.json the arguments that it was given beside every conversation, where it was given any
    SAVE/hf/generation_config.json    the model's, with the template's stop tokens first
    SAVE/hf/sft.json                  where the base was, which shards, and the adapters' rank and alpha (`Sidecar`)

A checkpoint holds numbers alone; the base may have moved and the shards may be gone when it is exported.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.formats.shards.contents import open_inside, read_inside
from sft_shards.formats.shards.files import atomic_write, write_json
from sft_shards.formats.shards.manifest import TEMPLATES
from sft_shards.formats.shards.schema import SchemaError, build, parse
from sft_shards.trainer.model.hf_config import ModelShape
from sft_shards.trainer.model.lora import Lora

FOLDER, NAME = "hf", "sft.json"
ARGUMENTS = "chat_template_kwargs.json"
"""Beside a model: arguments of its chat template."""
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """`sft.json`."""

    base: str
    """Folder of the model that training started from; "": none, the weights were random or a checkpoint's."""
    architecture: str
    """Its name in `ARCHITECTURES`."""
    shards: tuple[str, ...]
    """As --shards named them."""
    stop: tuple[str, ...]
    """Tokens that end an assistant's turn."""
    adapter: Lora | None = None
    """The adapters that are trained; None: all weights are."""
    schema: int = SCHEMA


def write(
    save: Path,
    *,
    shape: ModelShape,
    base: str | None,
    shards: Sequence[str],
    manifest: Manifest,
    directory: Path,
    adapter: Lora | None = None,
) -> None:
    """Write `SAVE/hf/`, each file atomically; what an earlier start wrote is replaced.

    Args:
        save: the folder of the checkpoints.
        shape: read from the config.json that is copied.
        base: folder of the model; None: there is none.
        shards: as the call named them.
        manifest, directory: of the first of them.
        adapter: see `Sidecar`.
    """
    folder = save / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _copy(Path(shape.path), folder / "config.json")
    tokenizer = directory / "tokenizer"
    for file in sorted(tokenizer.iterdir()) if tokenizer.is_dir() else ():
        if file.name != TEMPLATES and file.name not in ("config.json", "generation_config.json"):
            with open_inside(directory, f"tokenizer/{file.name}") as source, atomic_write(folder / file.name) as copy:
                shutil.copyfileobj(source, copy)
    if manifest.template.source:
        _template(folder, manifest.template.source, manifest.template.tools_source)
    write_arguments(folder, manifest.template.arguments)
    stop = manifest.template.stop
    write_json(folder / "generation_config.json", _generation(folder, base, stop, manifest))
    sidecar = Sidecar(
        base=str(Path(base).resolve()) if base else "",
        architecture=shape.architecture,
        shards=tuple(shards),
        stop=stop,
        adapter=adapter,
    )
    write_json(folder / NAME, dataclasses.asdict(sidecar))


def read(folder: Path) -> Sidecar:
    """The sidecar in `SAVE/hf`.

    Raises:
        UsageError: there is none.
        DataError: it is damaged, or of a later release.
    """
    file = folder / NAME
    try:
        raw = parse(read_inside(folder, NAME))
        if isinstance(raw, dict) and raw.get("schema") != SCHEMA:
            raise DataError(
                f"{file}: of schema {raw.get('schema')!r:.60}, this release reads {SCHEMA}; use the one that wrote it"
            )
        return build(Sidecar, raw)
    except OSError:
        raise UsageError(
            f"{folder}: no {NAME} there, which says what the model is; training with --model or --hf-config writes it "
            "beside its checkpoints. For a checkpoint from elsewhere give --model DIR, a folder with its config.json "
            "and tokenizer"
        ) from None
    except SchemaError as error:
        raise DataError(f"{file}: not what this release wrote ({error})") from None


def stop_ids(folder: Path, texts: Sequence[str]) -> list[int]:
    """The ids of tokens, by the tokenizer in a folder; those that are no single token are left out.

    Raises:
        DataError: the tokenizer cannot be loaded.
    """
    if not texts:
        return []
    try:
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            find = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id
            found = [find(text) for text in texts]
            if None not in found:
                return [number for number in found if number is not None]
        if not any(folder.glob("tokenizer*")):
            return []
        from transformers import AutoTokenizer

        vocabulary = AutoTokenizer.from_pretrained(str(folder)).get_vocab()
        return [vocabulary[text] for text in texts if text in vocabulary]
    except Exception as error:  # the libraries raise bare exceptions
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{folder}: the tokenizer cannot be loaded ({reason})") from None


def _generation(folder: Path, base: str | None, stop: Sequence[str], manifest: Manifest) -> dict[str, Any]:
    """generation_config.json: that of the base, with the stop tokens in front of its own."""
    generation: dict[str, Any] = {}
    file = Path(base, "generation_config.json") if base else None
    if file is not None and file.is_file():
        try:
            generation = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            raise DataError(f"{file}: not JSON; fetch the model again") from None
    info = manifest.tokenizer
    theirs = generation.get("eos_token_id")
    ends = [*stop_ids(folder, stop), *(theirs if isinstance(theirs, list) else [] if theirs is None else [theirs])]
    generation["eos_token_id"] = list(dict.fromkeys(ends or [info.eos_id]))
    generation["pad_token_id"] = info.pad_id
    if info.bos_id is not None:
        generation["bos_token_id"] = info.bos_id
    return generation


def write_arguments(folder: Path, arguments: Mapping[str, object]) -> None:
    """Write what `sft-train chat` gives the template, as a server has to (vLLM: --default-chat-template-kwargs)."""
    if arguments:
        write_json(folder / ARGUMENTS, dict(arguments))
    else:
        (folder / ARGUMENTS).unlink(missing_ok=True)


def _template(folder: Path, source: str, tools_source: str) -> None:
    """The shards' template as the tokenizer's chat template, where either version of transformers looks for it.

    Args:
        tools_source: its other one, for conversations that offer tools; "" where there is none.
    """
    shutil.rmtree(folder / TEMPLATES, ignore_errors=True)
    named: object = source
    if tools_source:
        (folder / TEMPLATES).mkdir()
        with atomic_write(folder / TEMPLATES / "tool_use.jinja") as target:
            target.write(tools_source.encode("utf-8"))
        named = [{"name": "default", "template": source}, {"name": "tool_use", "template": tools_source}]
    with atomic_write(folder / "chat_template.jinja") as target:
        target.write(source.encode("utf-8"))
    file = folder / "tokenizer_config.json"
    if file.is_file():
        write_json(file, {**json.loads(file.read_text("utf-8")), "chat_template": named})


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file, atomic_write(target) as copy:
        shutil.copyfileobj(file, copy)
