"""The backends that turn texts into token ids: fastokens where it gives the same ids, else Hugging Face's tokenizers.

fastokens is some thirty times faster on text that it has not seen. It has no offsets, so masks come from the byte
lengths of tokens (see `byte_lengths`). It is built from the loaded tokenizer's own serialization, not from the file,
which can lack tokens that are declared elsewhere. Whether it gives the same ids is checked on texts made to be hard,
before a job with this tokenizer starts, and on a sample of the job's own records while it runs.
"""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.preprocess.tokenizer.cache import cached
from sft_shards.preprocess.tokenizer.nfc import normalize_known
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

NFC_STEP = '"normalizer":{"type":"NFC"}'
"""How a serialized tokenizer says that it brings texts to NFC."""
SMALL = 2 << 20
"""Bytes of input below which Hugging Face's tokenizers are done before fastokens would be loaded."""
HARD = (
    "",
    " ",
    "  a  b\n\n c\t\td \r\n",
    "I'll don't WE'RE they'd 'tis O'Neil''s",
    "1234567890 3.14159 1,000,000 0x1F ½ Ⅷ ४२",
    "naïve café cafe\u0301 A\u030a ﬁ Å \u1e9b\u0323 \u0344 \u0958",
    "日本語テキスト 中文字符测试 한국어 ภาษาไทย हिन्दी العربية עברית",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇹🇷 👍🏽 \U0001f9ff",
    "\u2028\u2029\u0085\u00a0\u3000\ufeff\u200b\u200d\u202e",
    "\0\x01\x7f\x80 \U0010ffff \ue000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 8,
    "def f(x):\n    return {k: v for k, v in x.items()}  # ok?!\n\n\n\tif __name__ == '__main__':\n",
    'http://example.com/a?b=c&d=%20#e <div class="x">&amp;</div> \\frac{1}{2} $$ ```py```',
    "<think>\n</think> <tool_call>{}</tool_call> <|im_start|> <|im_end|> <s> </s> <unk> <|endoftext|> <0x0A>",
)


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """The token ids of several texts. Three texts of two, no and one token have the offsets [0, 2, 2, 3]."""

    ids: NDArray[np.int32]
    """int32[T]: of all texts, one after the other."""
    offsets: NDArray[np.int64]
    """int64[n + 1], in tokens: text i has `ids[offsets[i]:offsets[i + 1]]`."""


class Backend(Protocol):
    """Gives the token ids of texts."""

    name: str
    """What the manifest and messages call it."""
    prefers_joined: bool
    """Whether one long text is encoded faster than many short ones."""

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Encode texts. Control tokens in them become their ids; nothing is added."""
        ...


class HuggingFace:
    """Hugging Face's own tokenizers: the reference for ids."""

    name = "hf"
    prefers_joined = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer: HuggingFaceTokenizer = tokenizer.backend

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Encode texts, as `Backend.encode`."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        ids = np.fromiter((number for row in rows for number in row), dtype=np.int32, count=int(offsets[-1]))
        return TokenIds(ids=ids, offsets=offsets)


class Fastokens:
    """The fastokens package. It is given no text that NFC would change where the tokenizer brings texts to NFC.

    Raises:
        ImportError: it is not installed.
        ValueError: it does not support something that the tokenizer needs.
    """

    name = "fastokens"
    prefers_joined = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._native = _load_fastokens(tokenizer)

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Encode texts, as `Backend.encode`."""
        ids, offsets = self._native.encode_batch_flat(list(texts))
        return TokenIds(ids=np.frombuffer(ids, dtype="<i4"), offsets=np.frombuffer(offsets, dtype="<i8"))


_LOCK = threading.Lock()
_loading: list[threading.Thread] = []
"""The threads of `load_ahead` that nobody has waited for."""


def _load_fastokens(tokenizer: Tokenizer) -> Any:
    """Return fastokens' tokenizer, without its NFC step: the pipeline checks texts itself, in a third of the time.

    Loading takes a second where the vocabulary is large. It may have begun in another thread (`load_ahead`).
    """
    with _LOCK:
        return _parse_fastokens(tokenizer)


@lru_cache(maxsize=1)
def _parse_fastokens(tokenizer: Tokenizer) -> Any:
    from fastokens import Tokenizer as Native

    return Native.from_json_str(tokenizer.serialized.replace(NFC_STEP, '"normalizer":null', 1))


def load_ahead(name: str, tokenizer: Tokenizer) -> None:
    """Begin to load a backend in another thread, for whoever makes it later; parsing holds no lock of Python's."""

    def load() -> None:
        with suppress(ImportError, ValueError):  # raised again where the backend is made
            _load_fastokens(tokenizer)

    if name == Fastokens.name:
        _loading.append(threading.Thread(target=load, daemon=True))
        _loading[-1].start()


def wait_for_loading() -> None:
    """Wait for the threads of `load_ahead` to end."""
    while _loading:
        _loading.pop().join()


def find_difference(backend: Backend, reference: HuggingFace, texts: Sequence[str]) -> str | None:
    """Return a phrase on the first text to which a backend gives other ids than Hugging Face; None if there is none.

    All texts are compared in NFC, which is how the pipeline hands them to a backend.
    """
    texts = list(map(normalize_known, texts))
    got, expected = backend.encode(texts), reference.encode(texts)
    for number, text in enumerate(texts):
        ids = got.ids[got.offsets[number] : got.offsets[number + 1]]
        right = expected.ids[expected.offsets[number] : expected.offsets[number + 1]]
        if not np.array_equal(ids, right):
            return f"{text[:40]!r}: {ids[:8].tolist()}… where Hugging Face gives {right[:8].tolist()}…"
    return None


def hard_texts(tokenizer: Tokenizer) -> list[str]:
    """Return texts on which tokenizers are known to differ: scripts, spaces, normal forms, control tokens."""
    control = "".join(f"a{token} {token}\n" for token in tokenizer.control_tokens[:64])
    points = [chr(point) for point in range(0, 0x3000, 7) if not 0xD800 <= point < 0xE000]
    forms = [unicodedata.normalize(form, HARD[5]) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    return [*HARD, control, " ".join(points), "".join(points), *forms]


def choose_backend(kind: str, tokenizer: Tokenizer, size: int) -> tuple[str, str]:
    """Return the name of a job's backend, and a sentence on how it was chosen, for the log and the manifest.

    Args:
        kind: one of `config.BACKENDS`.
        size: bytes of all inputs. fastokens takes a second to load, in which Hugging Face's encodes some megabytes.

    Raises:
        UsageError: fastokens was asked for by name and cannot be used.
    """
    if kind == HuggingFace.name:
        return kind, "hf, as asked for"
    if kind != Fastokens.name and size < SMALL:
        return HuggingFace.name, f"hf, because the inputs have less than {SMALL:,} bytes"
    if tokenizer.cacheable:
        check = partial(_problem, tokenizer)
        problem = cached("fastokens", tokenizer.files, check, to_bytes=_encode, from_bytes=_decode)
    else:
        problem = _problem(tokenizer)
    if problem is None:
        return (
            Fastokens.name,
            f"fastokens {fastokens_version()}, the same ids as Hugging Face's on hard texts",
        )
    if kind == Fastokens.name:
        raise UsageError(
            f"--tokenizer-engine fastokens: cannot be used with {tokenizer.name} ({problem}); use auto or hf"
        )
    return HuggingFace.name, f"hf, because fastokens cannot be used ({problem})"


def load_backend(name: str, tokenizer: Tokenizer) -> Backend:
    """Return a backend by its name.

    Raises:
        ImportError, ValueError: as `Fastokens`.
    """
    wait_for_loading()
    return Fastokens(tokenizer) if name == Fastokens.name else HuggingFace(tokenizer)


def _problem(tokenizer: Tokenizer) -> str | None:
    """Return a phrase on why fastokens cannot be used with a tokenizer, or None."""
    try:
        return find_difference(Fastokens(tokenizer), HuggingFace(tokenizer), hard_texts(tokenizer))
    except ImportError:
        return "it is not installed"
    except (AttributeError, TypeError):
        return f"{fastokens_version()} has other functions than this release calls"
    except ValueError as error:
        return str(error).splitlines()[0][:160]


def _encode(problem: str | None) -> bytes:
    return json.dumps({"problem": problem}).encode()


def _decode(content: bytes) -> str | None:
    try:
        problem = json.loads(content)["problem"]
    except (ValueError, KeyError, TypeError):
        raise DataError("a saved comparison is damaged") from None
    return None if problem is None else str(problem)


def fastokens_version() -> str:
    """Return the installed version of fastokens, or "none"."""
    try:
        return version("fastokens")
    except PackageNotFoundError:
        return "none"
