"""Records that are hard to read, render and tokenize, and the pipelines that tests run them through."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import Rendering, TrainedText
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.batch import RenderedBatch, TrainedTurns
from sft_shards.preprocess.pipeline.pipeline import Pipeline
from sft_shards.preprocess.pipeline.rendered_texts import as_batch
from sft_shards.preprocess.pipeline.tokenize import ReferenceTokenization
from sft_shards.preprocess.sources import JsonBatch
from sft_shards.preprocess.tokenizer.backends import SMALL, Backend, TokenIds, choose_backend, load_backend
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

KINDS = ("bytes", "bytes-nfc", "spm", "metaspace")
"""Kinds of tokenizer that `make_tokenizer` makes."""
WORDS = st.sampled_from(
    ["<|im_end|>", "<|im_start|>", "</s>", "<think>", "</think>", "[/INST]", "<0x0A>", "▁", "ﷺ", "e\u0301", "👩\u200d"]
)
CHARACTERS = st.sampled_from(
    [*"ab ,.\n\t\r\0'", "é", "\u0301", "\u2028", "日", "👩", "\u200d", "\ufdd0", "\ud800", "\U000f0000"]
)
TEXT = st.lists(WORDS | st.text(CHARACTERS | st.characters(), max_size=8), max_size=5).map("".join)
ROLE = st.sampled_from(["system", "user", "assistant", "tool", "robot", "human", "gpt"])
EXTRA = st.sampled_from([{}, {}, {"name": "x"}, {"weight": 0}, {"tool_calls": None}, {"content": None}, {"other": 1}])
BESIDE = st.sampled_from([{}, {}, {"system": "S"}, {"tools": "[]"}, {"images": []}, {"id": 7}])
FORMS = ("alpaca", "chatml", "openai", "sharegpt", "rounds", "text")
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {}}}]


def record_of(form: str, texts: Any, roles: Any, extra: Any, beside: Any) -> dict[str, Any]:
    if form == "alpaca":
        return {"instruction": texts[0], "input": texts[1], "output": texts[-1], **beside}
    if form == "chatml":
        turns = zip(roles, texts, strict=False)
        return {"text": "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns), **beside}
    if form == "text":
        return {"text": "".join(texts), **beside}
    if form == "rounds":
        rounds = [{"human": asked, "assistant": said} for asked, said in zip(texts[::2], texts[1::2], strict=False)]
        rounds[-1].update(extra)
        return {"conversation": rounds, **beside}
    keys = ("from", "value") if form == "sharegpt" else ("role", "content")
    messages = [{keys[0]: role, keys[1]: text} for role, text in zip(roles, texts, strict=False)]
    messages[-1].update(extra)
    return {"messages": messages, **beside}


RECORD = st.builds(
    record_of,
    st.sampled_from(FORMS),
    st.lists(TEXT, min_size=3, max_size=5),
    st.just(["user", "assistant"] * 3) | st.just(["human", "gpt"] * 3) | st.lists(ROLE, min_size=5, max_size=5),
    EXTRA,
    BESIDE,
)
FORM = st.sampled_from(FORMS)


def messages(*texts: str) -> dict[str, Any]:
    """A record of OpenAI's format; user and assistant take turns."""
    return {"messages": [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]}


def as_json(records: Sequence[Any], first: int = 0) -> JsonBatch:
    return JsonBatch.of_texts(first, [json.dumps(record).encode() for record in records])


def best_backend(tokenizer: Tokenizer) -> Backend:
    """The backend that a large job has under `--tokenizer-engine auto`."""
    return load_backend(choose_backend("auto", tokenizer, SMALL)[0], tokenizer)


def make_pipeline(
    folder: Path, template: str = "tokenizer", wrap: Callable[[Any], Any] = lambda backend: backend, **options: Any
) -> Pipeline:
    tokenizer = Tokenizer(str(folder))
    config = JobConfig(inputs=("x",), tokenizer=str(folder), **{"verify_every": 0, **options})
    return Pipeline(config, template, tokenizer, wrap(best_backend(tokenizer)))


def as_lists(batch: Any) -> dict[str, Any]:
    """The fields of any batch of arrays as lists, which compare."""
    found = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {
        name: as_lists(value)
        if isinstance(value, TrainedTurns)
        else value.tolist()
        if isinstance(value, np.ndarray)
        else list(value)
        if name == "rejects"
        else value
        for name, value in found.items()
    }


def rendered_from(texts: Sequence[str], spans: Sequence[Any] | None = None, typed: Any = None) -> RenderedBatch:
    """Texts with trained spans and typed control tokens in characters, as the render stage gives them."""
    spans, typed = spans or [[]] * len(texts), typed or [()] * len(texts)
    renderings = [Rendering(text=text, spoken=(), typed=tuple(own)) for text, own in zip(texts, typed, strict=True)]
    trained = [
        TrainedText(rendering=one, spans=list(own), turns=()) for one, own in zip(renderings, spans, strict=True)
    ]
    return as_batch(list(range(len(texts))), trained, [], [], {})


def without_reserved(text: str) -> str:
    """A text without surrogates and without what looks like a noncharacter."""
    return "".join(one for one in text if not "\ud800" <= one <= "\udfff" and not "\ufdc0" <= one <= "\ufdff")


class Planted:
    """A backend that changes one id in texts that hold a phrase."""

    name = "planted"
    prefers_joined = False

    def __init__(self, backend: Any, phrase: str, change: Callable[[int], int]) -> None:
        self.backend, self.phrase, self.change = backend, phrase, change

    def encode(self, texts: Sequence[str]) -> TokenIds:
        tokens = self.backend.encode(texts)
        ids = tokens.ids.copy()
        for number, text in enumerate(texts):
            if self.phrase in text:
                at = tokens.offsets[number] + 3
                ids[at] = self.change(int(ids[at]))
        return TokenIds(ids=ids, offsets=tokens.offsets)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One sequence of the reference."""

    ids: Any
    loss_mask: Any
    straddling: int


def encode_one(tokenizer: Tokenizer, rendering: Rendering, spans: Any, straddle: str = "train") -> Encoded:
    """What the reference makes of one rendering; RecordError where it rejects it."""
    stage = ReferenceTokenization(tokenizer, tokenizer.control_tokens, straddle=straddle)
    trained = TrainedText(rendering=rendering, spans=list(spans), turns=())
    tokenized = stage.tokenize(as_batch([0], [trained], [], [], {}))
    for reject in tokenized.rejects:
        raise RecordError(reject.reason, reject.detail)
    ids, loss_mask = tokenized.sequence(0)
    return Encoded(ids=ids, loss_mask=loss_mask, straddling=int(tokenized.straddling[0]))
