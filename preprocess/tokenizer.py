"""A tokenizer folder, loaded so that it only ever does one thing: text to ids, nothing added, nothing cut.

The `tokenizer.json` is read as it is (`PreTrainedTokenizerFast`): transformers 5 rebuilds some SentencePiece
tokenizers from their class name and then splits differently. What a tokenizer does besides is switched off:
its post-processor (which would add BOS a second time, and which trims offsets), truncation and padding.
"""

from __future__ import annotations

import json
import logging
import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.errors import UsageError
from formats.shards import TokenizerInfo, token_dtype, vocabulary_hash
from formats.shards.files import sha256_file
from formats.templates import TemplateTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
TERMINATORS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|eot|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end_of_turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
)
"""Tokens that end a turn in the families there are; one counts where it is a special token of the tokenizer."""


class Tokenizer:
    """A tokenizer folder.

    Attributes:
        name: as it was named in the call.
        folder: where its files lie.
        chat_template: its own Jinja template, or None.
        tool_template: another one for conversations that offer tools, or None.
        vocab_size: `len(tokenizer)`, one more than the largest id.

    Raises:
        UsageError: no such folder or Hub name, or a tokenizer that has no fast form (and so no offsets).
    """

    def __init__(self, name: str, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        logging.getLogger("transformers").setLevel(logging.ERROR)
        self.name = name
        self.folder = _folder(name)
        ready = (self.folder / "tokenizer.json").is_file() and not trust_remote_code
        try:
            loader = PreTrainedTokenizerFast if ready else AutoTokenizer
            fast: Any = loader.from_pretrained(str(self.folder), trust_remote_code=trust_remote_code)
        except Exception as error:
            raise UsageError(f"tokenizer {name}: cannot be loaded ({_one_line(error)})") from None
        if not getattr(fast, "is_fast", False):
            raise UsageError(
                f"tokenizer {name}: has no fast form, so it gives no offsets; convert it to a tokenizer.json"
            )
        self._serialized: str = fast.backend_tokenizer.to_str()
        self.vocab_size = max(len(fast), 1 + max(fast.get_vocab().values()))
        self.vocab_sha256 = vocabulary_hash(fast.get_vocab())
        self.eos_id: int | None = fast.eos_token_id
        self.pad_id: int | None = fast.pad_token_id
        self.bos_id: int | None = fast.bos_token_id
        named = fast.chat_template if isinstance(fast.chat_template, dict) else {"default": fast.chat_template}
        self.chat_template: str | None = named.get("default")
        self.tool_template: str | None = named.get("tool_use")
        variables = {key: str(value) for key, value in fast.special_tokens_map.items() if isinstance(value, str)}
        added = {str(token.content): token for token in fast.added_tokens_decoder.values()}
        control = {content for content, token in added.items() if token.special} | set(fast.all_special_tokens)
        self._own_variables = variables
        self._adds_bos = self.bos_id is not None and fast("a").input_ids[:1] == [self.bos_id]
        self._control = tuple(sorted(control))
        self._stop = _stop_tokens(fast, self.folder, control)

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Every special token."""
        return self._control

    def template_tokens(self, *, own: bool) -> TemplateTokens:
        """What a template is told. A built-in one (`own` false) gets a BOS only where the tokenizer begins with one."""
        variables = dict(self._own_variables)
        if not own:
            variables = {"eos_token": "", "bos_token": "", **variables}
            if not self._adds_bos:
                variables["bos_token"] = ""
        return TemplateTokens(variables=variables, control=self._control, stop=self._stop)

    @cached_property
    def backend(self) -> Backend:
        """The engine: control tokens in the text become their ids."""
        return self._engine()

    @cached_property
    def literal_backend(self) -> Backend:
        """The same engine, to which control tokens in the text are text."""
        engine = self._engine()
        engine.encode_special_tokens = True
        return engine

    @cached_property
    def keeps_cuts(self) -> bool:
        """Whether a piece of text is encoded without anything put in front of it (SentencePiece's space, say)."""
        backend = self.backend
        if backend.normalizer is not None and backend.normalizer.normalize_str("b") != "b":
            return False
        return backend.pre_tokenizer is None or backend.pre_tokenizer.pre_tokenize_str("b")[0][0] == "b"

    @cached_property
    def serialized(self) -> str:
        """The loaded tokenizer as JSON, without what it does besides."""
        spec = json.loads(self._serialized)
        return json.dumps({**spec, "post_processor": None, "truncation": None, "padding": None})

    def _engine(self) -> Backend:
        from tokenizers import Tokenizer as Backend

        engine: Backend = Backend.from_str(self.serialized)
        return engine

    def info(self) -> TokenizerInfo:
        """What the manifest says of it; UsageError where it has no EOS token, without which no model stops."""
        if self.eos_id is None:
            raise UsageError(f"tokenizer {self.name}: has no eos_token; set it in its tokenizer_config.json")
        return TokenizerInfo(
            name=self.name,
            vocab_size=self.vocab_size,
            vocab_sha256=self.vocab_sha256,
            dtype=token_dtype(self.vocab_size).name,
            eos_id=self.eos_id,
            pad_id=self.eos_id if self.pad_id is None else self.pad_id,
            bos_id=self.bos_id,
            files={name: sha256_file(self.folder / name) for name in FILES if (self.folder / name).is_file()},
        )

    def copy_files(self, target: Path) -> None:
        """Copy the tokenizer's files, byte for byte."""
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, target / name)


def _folder(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"tokenizer {name}: no such folder; name a folder with a tokenizer.json, or a Hub name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:
        raise UsageError(
            f"tokenizer {name}: no such folder, and not to be had from the Hub ({_one_line(error)})"
        ) from None


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _stop_tokens(fast: Any, folder: Path, control: set[str]) -> tuple[str, ...]:
    found = {token for token in TERMINATORS if token in control}
    if fast.eos_token:
        found.add(str(fast.eos_token))
    generation = folder / "generation_config.json"
    if generation.is_file():
        ids = json.loads(generation.read_text("utf-8")).get("eos_token_id")
        for number in ids if isinstance(ids, list) else [ids]:
            token = fast.convert_ids_to_tokens(number) if isinstance(number, int) else None
            if isinstance(token, str):
                found.add(token)
    return tuple(sorted(found))
