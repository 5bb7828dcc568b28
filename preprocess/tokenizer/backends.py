"""The engines that turn texts into ids: fastokens where it gives the same ids, Hugging Face's tokenizers otherwise.

fastokens is some thirty times faster on text it has not seen, and has no offsets; masks come from the byte lengths
of tokens (see `lengths`). It is built from the loaded tokenizer's own serialization, not from the file (which can lack
tokens that are declared elsewhere). Whether it gives the same ids is looked at when a job starts, on texts made to
be hard and on the job's own records, and goes on being looked at while it runs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.tokenizer.nfc import settled
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

COMPOSES = '"normalizer": {"type": "NFC"}'
"""In a serialized tokenizer."""
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
class Flat:
    """The ids of several texts, one after the other."""

    ids: NDArray[np.int32]
    """int32[T]."""
    bounds: NDArray[np.int64]
    """int64[n + 1]: text i has ids[bounds[i]:bounds[i + 1]]."""


class HuggingFace:
    """Hugging Face's own tokenizers."""

    name = "hf"
    joins = False
    """Whether one long text is encoded faster than many short ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._backend: Backend = tokenizer.backend

    def encode(self, texts: Sequence[str]) -> Flat:
        """Encode texts, control tokens in them becoming their ids, nothing added."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return _flat([encoding.ids for encoding in encodings])


class Fastokens:
    """The fastokens package.

    Raises:
        ImportError: it is not installed.
        ValueError: it does not know something that the tokenizer needs.
    """

    name = "fastokens"
    joins = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._native = _native(tokenizer)

    def encode(self, texts: Sequence[str]) -> Flat:
        """Encode texts that NFC leaves as they are, control tokens in them becoming their ids, nothing added."""
        ids, bounds = self._native.encode_batch_flat(list(texts))
        return Flat(
            ids=np.frombuffer(ids, dtype="<i4"),
            bounds=np.frombuffer(bounds, dtype="<i8"),
        )


@lru_cache(maxsize=1)
def _native(tokenizer: Tokenizer) -> Any:
    """fastokens' tokenizer, without a step of NFC: the fast way sees to it itself, for a third of its time.

    A job in one process compares it when it plans and then works with it: making one takes seconds where the vocabulary
    is large.
    """
    from fastokens import Tokenizer as Native

    return Native.from_json_str(tokenizer.serialized.replace(COMPOSES, '"normalizer": null', 1))


Engine = HuggingFace | Fastokens


def _flat(ids: list[list[int]]) -> Flat:
    bounds = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = np.fromiter((number for one in ids for number in one), dtype=np.int32, count=int(bounds[-1]))
    return Flat(ids=flat, bounds=bounds)


def difference(engine: Engine, reference: HuggingFace, texts: Sequence[str]) -> str | None:
    """The first text to which an engine gives other ids than Hugging Face, in a phrase; None if there is none. All
    texts in NFC, as the fast way has them."""
    texts = list(map(settled, texts))
    got, expected = engine.encode(texts), reference.encode(texts)
    for number, text in enumerate(texts):
        one = got.ids[got.bounds[number] : got.bounds[number + 1]]
        other = expected.ids[expected.bounds[number] : expected.bounds[number + 1]]
        if not np.array_equal(one, other):
            return f"{text[:40]!r}: {one[:8].tolist()}… where Hugging Face gives {other[:8].tolist()}…"
    return None


def hard_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts on which tokenizers are known to go apart: scripts, spaces, normal forms, control tokens."""
    control = "".join(f"a{token} {token}\n" for token in tokenizer.control_tokens[:64])
    points = [chr(point) for point in range(0, 0x3000, 7) if not 0xD800 <= point < 0xE000]
    forms = [unicodedata.normalize(form, HARD[5]) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    return [*HARD, control, " ".join(points), "".join(points), *forms]


def choose_engine(kind: str, tokenizer: Tokenizer, samples: Sequence[str]) -> tuple[Engine, str]:
    """The engine for a job, and a sentence on how it was chosen, for the log and the manifest.

    Args:
        kind: one of `config.BACKENDS`.
        samples: texts of the job's own records.

    Raises:
        UsageError: fastokens was asked for by name and cannot be used.
    """
    reference = HuggingFace(tokenizer)
    if kind == "hf":
        return reference, "hf, as asked for"
    texts = [*hard_texts(tokenizer), *samples]
    try:
        engine = Fastokens(tokenizer)
        problem = difference(engine, reference, texts)
    except ImportError:
        problem = "it is not installed"
    except ValueError as error:
        problem = str(error).splitlines()[0][:160]
    if problem is None:
        return engine, f"fastokens {fastokens_version()}, the same ids as Hugging Face's on {len(texts)} texts"
    if kind == "fastokens":
        raise UsageError(
            f"--tokenizer-engine fastokens: cannot be used with {tokenizer.name} ({problem}); use auto or hf"
        )
    return reference, f"hf, because fastokens cannot be used ({problem})"


def fastokens_version() -> str:
    """The installed version of fastokens."""
    try:
        return version("fastokens")
    except PackageNotFoundError:
        return "none"
