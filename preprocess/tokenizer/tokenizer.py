"""A tokenizer folder, loaded so that it only ever does one thing: text to ids, nothing added, nothing cut.

What a tokenizer does besides is switched off: its post-processor (which would add BOS a second time, and which trims
offsets), truncation and padding. How its files are read is in `loading`.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import TokenizerInfo, token_dtype
from sft_shards.formats.shards.files import sha256_file
from sft_shards.formats.templates import TemplateTokens
from sft_shards.preprocess.tokenizer.metadata import Facts, load, one_line

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
LOADED = "loaded.json"
"""Beside a plan's copy of the files: what transformers made of them."""


class Tokenizer:
    """A tokenizer folder.

    Args:
        name: a folder or a Hub name.
        facts: what is known of the folder already; transformers is asked without.

    Attributes:
        name: as it was named in the call.
        folder: where its files lie.
        facts: all that was read from them.
        chat_template: its own Jinja template, or None.
        tool_template: another one for conversations that offer tools, or None.
        vocab_size: `len(tokenizer)`, one more than the largest id.

    Raises:
        UsageError: no such folder or Hub name, or a tokenizer that has no fast form (and so no offsets).
    """

    def __init__(self, name: str, *, trust_remote_code: bool = False, facts: Facts | None = None) -> None:
        self.name = name
        self.folder = _folder(name)
        self.facts = facts or load(self.folder, name, trust_remote_code=trust_remote_code)
        self.vocab_size = self.facts.vocab_size
        self.chat_template = self.facts.chat_template
        self.tool_template = self.facts.tool_template

    @classmethod
    def planned(cls, name: str, folder: Path, digest: str) -> Tokenizer:
        """The tokenizer that `copy_files` wrote to a folder.

        Raises:
            DataError: what was read from it is not what was planned.
        """
        path = folder / LOADED
        text = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(text).hexdigest() != digest:
            raise DataError(f"{path}: not the tokenizer that was planned; plan again with --overwrite")
        tokenizer = cls(str(folder), facts=Facts.from_bytes(text))
        tokenizer.name = name
        return tokenizer

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Every special token."""
        return self.facts.control

    def template_tokens(self, *, own: bool) -> TemplateTokens:
        """What a template is told. A built-in one (`own` false) gets a BOS only where the tokenizer begins with one."""
        variables = dict(self.facts.variables)
        if not own:
            variables = {"eos_token": "", "bos_token": "", **variables}
            if not self.facts.adds_bos:
                variables["bos_token"] = ""
        return TemplateTokens(variables=variables, control=self.facts.control, stop=self.facts.stop)

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

    @property
    def serialized(self) -> str:
        """The loaded tokenizer as JSON, without what it does besides."""
        return self.facts.serialized

    @cached_property
    def loaded(self) -> bytes:
        """What was read from the files, for the file beside a plan."""
        return self.facts.as_bytes()

    def _engine(self) -> Backend:
        from tokenizers import Tokenizer as Backend

        engine: Backend = Backend.from_str(self.serialized)
        return engine

    def info(self) -> TokenizerInfo:
        """What the manifest says of it; UsageError where it has no EOS token, without which no model stops."""
        facts = self.facts
        if facts.eos_id is None:
            raise UsageError(f"tokenizer {self.name}: has no eos_token; set it in its tokenizer_config.json")
        return TokenizerInfo(
            name=self.name,
            vocab_size=facts.vocab_size,
            vocab_sha256=facts.vocab_sha256,
            dtype=token_dtype(facts.vocab_size).name,
            eos_id=facts.eos_id,
            pad_id=facts.eos_id if facts.pad_id is None else facts.pad_id,
            bos_id=facts.bos_id,
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
            f"tokenizer {name}: no such folder, and not to be had from the Hub ({one_line(error)})"
        ) from None
