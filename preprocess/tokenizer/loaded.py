"""A tokenizer as it was loaded, in one file: its metadata, its JSON, and the bytes of its tokens.

transformers takes seconds to import and to read a large vocabulary. What it read is saved twice: beside a plan, for
the tasks of the job, and in the cache folder, for every job after the first with the same tokenizer.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sft_shards.formats.errors import DataError
from sft_shards.formats.token_bytes import TokenBytes, token_bytes
from sft_shards.preprocess.tokenizer.metadata import TokenizerMetadata, load

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

ARRAYS = ("data", "offsets", "control")


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """All that a job needs of a tokenizer folder."""

    metadata: TokenizerMetadata
    """Without `serialized`."""
    serialized: str
    """The tokenizer as the JSON of `tokenizers`, without post-processor, truncation and padding, written compactly."""
    token_bytes: TokenBytes | None
    """The bytes of every id; None for a kind whose tokens do not stand for fixed bytes."""
    backend: HuggingFaceTokenizer | None = field(default=None, compare=False)
    """Hugging Face's tokenizer, where it was just made from the files."""

    @classmethod
    def of_folder(cls, folder: Path, name: str, *, trust_remote_code: bool = False) -> LoadedTokenizer:
        """Load a tokenizer folder by transformers.

        Raises:
            UsageError: the tokenizer cannot be loaded, or has no fast form (and so no offsets).
        """
        metadata, backend, spec = load(folder, name, trust_remote_code=trust_remote_code)
        return cls(
            metadata=metadata,
            serialized=_serialize(spec),
            token_bytes=token_bytes(spec, metadata.vocab_size),
            backend=backend,
        )

    def as_bytes(self) -> bytes:
        """Return the content of the file: the same bytes for the same tokenizer. `from_bytes` reads it back."""
        header: dict[str, Any] = {"metadata": asdict(self.metadata), "token_bytes": None}
        arrays = {"serialized": np.frombuffer(self.serialized.encode("utf-8"), dtype=np.uint8)}
        if (found := self.token_bytes) is not None:
            header["token_bytes"] = {
                "prepends_space": found.prepends_space,
                "openers": found.openers,
                "normalizes": found.normalizes,
                "swallowing": found.swallowing,
            }
            arrays.update({name: getattr(found, name) for name in ARRAYS})
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> LoadedTokenizer:
        """Return what `as_bytes` wrote; checksums inside of the file are compared.

        Raises:
            DataError: the content is damaged, or another version wrote it.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                table = header["token_bytes"]
                found = None
                if table is not None:
                    table |= {name: tuple(table[name]) for name in ("openers", "swallowing")}
                    found = TokenBytes(**table, **{name: arrays[name] for name in ARRAYS})
                return cls(
                    metadata=TokenizerMetadata.from_dict(header["metadata"]),
                    serialized=arrays["serialized"].tobytes().decode("utf-8"),
                    token_bytes=found,
                )
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"a saved tokenizer is damaged ({error})") from None


def _serialize(spec: dict[str, Any]) -> str:
    """Return a tokenizer as JSON. Merges become "a b" in place of ["a", "b"], which parses in two thirds of the time.

    That is how `tokenizers` wrote them before 0.20; it cannot say where a part with a space in it ends.
    """
    model = spec["model"]
    merges = model.get("merges")
    if merges and not isinstance(merges[0], str) and " " not in "".join(chain.from_iterable(merges)):
        spec = {**spec, "model": {**model, "merges": list(map(" ".join, merges))}}
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
