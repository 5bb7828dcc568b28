"""A tokenizer folder, loaded so that it only ever does one thing: text to ids, nothing added, nothing cut.

Everything else that a tokenizer can do is switched off: its post-processor (which would add a second BOS, and trims
offsets), truncation and padding. How its files are read is in `metadata`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sft_shards.formats import hub
from sft_shards.formats.errors import DataError, UsageError, first_line
from sft_shards.formats.shards import TokenizerInfo, token_dtype
from sft_shards.formats.shards.contents import folder_inside, is_file_inside, kind_of, read_inside
from sft_shards.formats.shards.files import atomic_write, sha256_file
from sft_shards.formats.shards.manifest import TEMPLATES
from sft_shards.formats.templates import TemplateTokens
from sft_shards.preprocess.tokenizer.cache import cached
from sft_shards.preprocess.tokenizer.loaded import LoadedTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    from sft_shards.formats.token_bytes import TokenBytes
    from sft_shards.preprocess.config import JobConfig

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
MORE_TEMPLATES = f"{TEMPLATES}/*.jinja"
"""Templates beside the first one, such as `tool_use`."""
LOADED = "loaded.npz"
"""Beside a plan's copy of the files: what transformers read from them."""


class Tokenizer:
    """A tokenizer folder.

    Args:
        name: a folder or a Hub name.
        revision: commit, tag or branch on the Hub (default: the newest commit).
        trust_remote_code: whether transformers may run code that the folder brings.
        loaded: what was read from the folder before (default: the cache has it, or transformers reads it now).
        cache: whether the cache may be asked, and what was read be kept there.

    Attributes:
        name: as it was named in the call.
        folder: where its files lie.
        revision: the commit that was fetched from the Hub, or None.
        metadata: all that was read from them.
        chat_template: its own Jinja template, or None.
        tool_template: another one for conversations that offer tools, or None.
        vocab_size: `len(tokenizer)`, one more than the largest id.
        cacheable: whether what is found out about it may be kept in the cache.

    Raises:
        UsageError: no such folder or Hub name, or a tokenizer that has no fast form (and so no offsets).
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        loaded: LoadedTokenizer | None = None,
        cache: bool = True,
    ) -> None:
        self.name = name
        self.folder, self.revision = _folder(name, revision)
        check_links(self.folder)
        self.cacheable = False
        self._loaded = loaded or self._load(trust_remote_code=trust_remote_code, cache=cache)
        self.metadata = self._loaded.metadata
        self.vocab_size = self.metadata.vocab_size
        self.chat_template = self.metadata.chat_template
        self.tool_template = self.metadata.tool_template

    @classmethod
    def configured(cls, config: JobConfig, *, cache: bool = True) -> Tokenizer:
        """Return the tokenizer that the configuration of a job names."""
        return cls(config.tokenizer, revision=config.revision, trust_remote_code=config.trust_remote_code, cache=cache)

    @classmethod
    def planned(cls, name: str, folder: Path, digest: str) -> Tokenizer:
        """Return the tokenizer that a plan has copied to a folder, without asking transformers.

        Args:
            name: what messages and the manifest call it.
            folder: the copy, with `loaded.npz`.
            digest: the SHA-256 of `loaded.npz` that the plan names.

        Raises:
            DataError: `loaded.npz` is not the one that was planned.
        """
        path = folder / LOADED
        content = read_inside(folder, LOADED) if is_file_inside(folder, LOADED) else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{path}: not the tokenizer that was planned; plan again with --overwrite")
        tokenizer = cls(str(folder), loaded=LoadedTokenizer.from_bytes(content))
        tokenizer.name = name
        return tokenizer

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Every special token."""
        return self.metadata.control

    def template_tokens(self, *, own: bool) -> TemplateTokens:
        """Return what a template needs from this tokenizer.

        A template that is not the tokenizer's own gets a BOS only where the tokenizer puts one in front of texts.
        """
        variables = dict(self.metadata.variables)
        if not own:
            variables = {"eos_token": "", "bos_token": "", **variables}
            if not self.metadata.adds_bos:
                variables["bos_token"] = ""
        metadata = self.metadata
        return TemplateTokens(
            variables=variables,
            opening=metadata.variables["bos_token"] if metadata.adds_bos else "",
            control=metadata.control,
            added=metadata.added,
            stop=metadata.stop,
        )

    @cached_property
    def backend(self) -> HuggingFaceTokenizer:
        """Hugging Face's tokenizer; control tokens in the text become their ids."""
        return self._loaded.backend or _parse(self.serialized)

    def literal_backend(self, control: Collection[str]) -> HuggingFaceTokenizer:
        """Return the same tokenizer, to which some added tokens are text; it still finds the other ones."""
        spec = json.loads(self.serialized)
        for token in spec["added_tokens"]:
            token["special"] = token["content"] in control
        tokenizer = _parse(json.dumps(spec, ensure_ascii=False))
        tokenizer.encode_special_tokens = True  # texts of special tokens are encoded as texts
        return tokenizer

    @cached_property
    def keeps_cuts(self) -> bool:
        """Whether a piece of text is encoded without anything put in front of it (SentencePiece's space, say)."""
        backend = self.backend
        if backend.normalizer is not None and backend.normalizer.normalize_str("b") != "b":
            return False
        return backend.pre_tokenizer is None or backend.pre_tokenizer.pre_tokenize_str("b")[0][0] == "b"

    def decode(self, ids: NDArray[Any]) -> str:
        """Return the text of ids, int[L], control tokens included."""
        if self.token_bytes is not None:
            return self.token_bytes.decode(ids)
        text: str = self.backend.decode(ids.tolist(), skip_special_tokens=False)
        return text

    @property
    def serialized(self) -> str:
        """The tokenizer as JSON, without post-processor, truncation and padding."""
        return self._loaded.serialized

    @property
    def token_bytes(self) -> TokenBytes | None:
        """The bytes of every id; None for a kind whose tokens do not stand for fixed bytes."""
        return self._loaded.token_bytes

    @cached_property
    def loaded(self) -> bytes:
        """The content of `loaded.npz`."""
        return self._loaded.as_bytes()

    @cached_property
    def files(self) -> dict[str, str]:
        """By name, the SHA-256 of each of its files."""
        return {name: sha256_file(self.folder / name) for name in _names(self.folder) if (self.folder / name).is_file()}

    def _load(self, *, trust_remote_code: bool, cache: bool) -> LoadedTokenizer:
        def load() -> LoadedTokenizer:
            return LoadedTokenizer.of_folder(self.folder, self.name, trust_remote_code=trust_remote_code)

        # Code that a folder brings may do another thing every time; without a tokenizer.json, transformers looks at
        # more files than `FILES` names.
        self.cacheable = cache and not trust_remote_code and "tokenizer.json" in self.files
        if not self.cacheable:
            return load()
        return cached(
            "loaded",
            self.files,
            load,
            to_bytes=LoadedTokenizer.as_bytes,
            from_bytes=LoadedTokenizer.from_bytes,
        )

    def info(self) -> TokenizerInfo:
        """Return what the manifest says of it.

        Raises:
            UsageError: it has no EOS token, without which no model stops.
        """
        metadata = self.metadata
        if metadata.eos_id is None:
            raise UsageError(f"tokenizer {self.name}: has no eos_token; set it in its tokenizer_config.json")
        return TokenizerInfo(
            name=self.name,
            vocab_size=metadata.vocab_size,
            vocab_sha256=metadata.vocab_sha256,
            dtype=token_dtype(metadata.vocab_size).name,
            eos_id=metadata.eos_id,
            pad_id=metadata.eos_id if metadata.pad_id is None else metadata.pad_id,
            bos_id=metadata.bos_id,
            files=self.files,
        )

    def copy_files(self, directory: Path, name: str, *, scratch: Path) -> None:
        """Copy the tokenizer's files, byte for byte, into a folder of a directory.

        Args:
            name: path of the folder below `directory`; it is made if it is not there.
            scratch: folder for temporary files.

        Raises:
            DataError: the folder is a link, or lies behind one.
        """
        for file in self.files:
            target = folder_inside(directory, f"{name}/{file}".rpartition("/")[0]) / Path(file).name
            with open(self.folder / file, "rb") as source, atomic_write(target, scratch=scratch) as copy:
                shutil.copyfileobj(source, copy)


def _parse(serialized: str) -> HuggingFaceTokenizer:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    try:
        tokenizer: HuggingFaceTokenizer = HuggingFaceTokenizer.from_str(serialized)
    except Exception as error:  # of no class of its own
        raise UsageError(f"the tokenizer's own JSON cannot be read again ({first_line(error)}); mend it") from None
    return tokenizer


def check_links(folder: Path) -> None:
    """Check that the tokenizer's files are regular files of their folder, since they are copied and passed on.

    Links within the folder may stay. So may those from a snapshot in the Hub's cache to the files beside the
    snapshots (`models--NAME/snapshots/REVISION/tokenizer.json` to `models--NAME/blobs/HASH`).

    Raises:
        UsageError: a link leads elsewhere, or a file is a FIFO, a folder or a device.
    """
    home = folder.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    for name in _names(folder):
        path = folder / name
        if not name.isprintable():
            raise UsageError(f"tokenizer file {str(path)!a}: the name cannot be printed; rename it")
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        real = Path(os.path.realpath(path))  # of links that lead to each other it is one of them
        if not real.is_relative_to(home):
            raise UsageError(f"tokenizer file {path}: is a link to a file elsewhere; put a copy of it there")
        if not real.is_file():
            kind = kind_of(real.lstat().st_mode if real.exists() else mode)
            raise UsageError(f"tokenizer file {path}: is {kind}, not a file; put the file there")


def _names(folder: Path) -> list[str]:
    """Return the names of a tokenizer's files, of which those at the top may be missing."""
    return [*FILES, *(f"{TEMPLATES}/{path.name}" for path in sorted(folder.glob(MORE_TEMPLATES)))]


def _folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Return the folder that a name stands for, and its commit if it was fetched from the Hub."""
    path = Path(name)
    if path.is_dir():
        if revision is not None:
            raise UsageError(f"--revision {revision}: tokenizer {name} is a folder here, not a Hub name; leave it out")
        return path, None
    folder = hub.fetch(name, (*FILES, MORE_TEMPLATES), option="tokenizer", revision=revision)
    return folder, hub.commit(folder)
