"""A model in a Hugging Face folder, with or without an adapter, that answers prompts of token ids.

Everything that decides on an answer comes from the folder: dtype, tokenizer, chat template, stop tokens
(`eos_token_id` of generation_config.json). Nothing is repaired here: a model that never stops is shown as one. The
template is a program of somebody else, so it runs in the sandbox that `sft-preprocess` has for templates.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_shards.formats.errors import DataError, RecordError, UsageError
from sft_shards.formats.template_arguments import read_arguments
from sft_shards.formats.templates.sandbox import render_prompt, variables_taken
from sft_shards.trainer.model.sidecar import ARGUMENTS

Messages = list[dict[str, str]]
"""Turns as chat templates take them: `role` and `content`."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model generated."""

    text: str
    """Without the stop token and other special tokens."""
    tokens: int
    """Generated, the stop token included."""
    stop: str
    """The token that the model ended with; "": it was cut off."""


@dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A loaded model with its tokenizer."""

    model: Any
    """A transformers model, or PEFT's around it."""
    tokenizer: Any
    """A transformers tokenizer."""
    folder: Path
    """Where tokenizer, template and stop tokens come from: the adapter's folder where it has them, else the model's."""
    stops: tuple[int, ...]
    """Ids that end an answer."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """What the chat template is given beside every conversation, by name."""

    @property
    def template(self) -> str | None:
        """Text of the tokenizer's chat template, if it has one."""
        named = self.tokenizer.chat_template
        return named.get("default") if isinstance(named, dict) else named

    def prompt(self, messages: Messages) -> list[int]:
        """Ids of a conversation up to where the assistant's answer begins.

        Raises:
            DataError: the folder has no chat template, or it refuses these messages or exceeds the sandbox's bounds.
        """
        source = self.template
        if not source:
            raise DataError(f"{self.folder}: has no chat template; export the model again, or add chat_template.jinja")
        variables = {name: one for name, one in self.tokenizer.special_tokens_map.items() if isinstance(one, str)}
        try:
            text = render_prompt(source, messages, {**variables, **self.arguments})
        except RecordError as error:
            detail = " ".join(error.detail.split())
            raise DataError(f"{self.folder}: its chat template refuses this conversation ({detail})") from None
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer(
        self,
        prompt: Sequence[int],
        *,
        limit: int,
        temperature: float = 0.0,
        show: Callable[[str], None] | None = None,
    ) -> Answer:
        """Generate an answer.

        Args:
            prompt: token ids, not empty.
            limit: tokens after which it is cut off.
            temperature: 0 for the most probable token each time.
            show: called with each piece of text as soon as it is complete.
        """
        import torch
        from transformers import TextStreamer

        class Shown(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if show is not None:
                    show(text)

        ids = torch.tensor([list(prompt)], device=self.model.device)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.inference_mode(), _quiet():
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                pad_token_id=self.stops[0] if self.stops else None,
                streamer=Shown(self.tokenizer, skip_prompt=True, skip_special_tokens=True),
                **sampling,
            )
        said = output[0, len(prompt) :].tolist()
        stop = self.tokenizer.convert_ids_to_tokens(said[-1]) if said and said[-1] in self.stops else ""
        return Answer(text=self.text(said), tokens=len(said), stop=stop)

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load(
    folder: str, *, adapter: str | None, device: str | None, arguments: Mapping[str, object] | None = None
) -> ChatModel:
    """Load a model folder, or an adapter's folder, which names its base.

    Args:
        adapter: a PEFT folder to put on the model.
        device: `cpu` or `gpu`; None: a GPU where there is one.
        arguments: of the chat template, which come before those in the folder.

    Raises:
        UsageError: a folder that is not there or holds no model.
        DataError: a package is missing, or the folder cannot be loaded.
    """
    base, adapter = _resolve(folder, adapter)
    for package in ("torch", "transformers", *(("peft",) if adapter is not None else ())):
        require(package)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    there = torch.cuda.is_available()
    if device == "gpu" and not there:
        raise DataError("--device gpu: torch sees no GPU here; use --device cpu")
    where = "cuda" if there and device != "cpu" else "cpu"
    source = Path(base)
    try:
        with _quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
            if adapter is not None:
                peft: Any = importlib.import_module("peft")
                model = peft.PeftModel.from_pretrained(model, adapter, local_files_only=True)
                if (Path(adapter) / "tokenizer_config.json").is_file():
                    source = Path(adapter)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
            if (source / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(source)
    except Exception as error:  # the libraries raise bare exceptions
        both = base if adapter is None else f"{base} with --adapter {adapter}"
        raise DataError(f"{both}: cannot be loaded ({_line(error)})") from None
    stops = model.generation_config.eos_token_id
    chat = ChatModel(
        model=model.to(where).eval(),
        tokenizer=tokenizer,
        folder=source,
        stops=() if stops is None else tuple(stops) if isinstance(stops, (list, tuple)) else (stops,),
        arguments={**_arguments(source), **(arguments or {})},
    )
    _require_used(chat, arguments or {})
    return chat


def _require_used(chat: ChatModel, arguments: Mapping[str, object]) -> None:
    """UsageError where a template does not use an argument that the call gives it."""
    with contextlib.suppress(RecordError):  # no template, which `prompt` says
        for name in sorted(arguments.keys() - variables_taken(chat.template or "")):
            raise UsageError(f"--template-arg {name}: the chat template of {chat.folder} does not use it; leave it out")


def _arguments(folder: Path) -> dict[str, Any]:
    """The arguments that the shards' template was given, which training wrote beside the model."""
    file = folder / ARGUMENTS
    if not file.is_file():
        return {}
    try:
        return read_arguments(file.read_text("utf-8"), file.name)
    except (RecordError, OSError, ValueError) as error:
        raise DataError(f"{file}: no arguments of a chat template ({_line(error)}); export the model again") from None


def _resolve(folder: str, adapter: str | None) -> tuple[str, str | None]:
    """The base model's folder and the adapter's, checked to be what they should."""
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise UsageError(f"--adapter {adapter}: holds no adapter (no adapter_config.json); name a PEFT folder")
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: no such folder; name the one that 'sft-train export' wrote, or a model's")
    if (Path(folder) / "config.json").is_file():
        return folder, adapter
    config = Path(folder) / "adapter_config.json"
    if adapter is not None or not config.is_file():
        raise UsageError(f"{folder}: holds no model (no config.json); name the folder that 'sft-train export' wrote")
    try:
        base = json.loads(config.read_text("utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        raise DataError(f"{config}: is not the configuration of an adapter; export it again") from None
    if not base or not (Path(base) / "config.json").is_file():
        raise UsageError(f"{folder}: is an adapter of {base}, which is not here; give: chat MODEL --adapter {folder}")
    return str(base), folder


def require(package: str) -> None:
    """DataError where a package that `chat` needs is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DataError(f"{package} is not installed; install it with \"pip install 'sft-shards[chat]'\"")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and advice off the terminal."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
