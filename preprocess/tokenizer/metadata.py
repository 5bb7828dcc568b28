"""The metadata of a tokenizer folder: all that transformers reads from it and a job needs, as values that can be saved.

transformers is asked once, when a job is planned. It takes seconds to import and to read a large vocabulary, which
every process of a cluster would spend again; tasks and `finalize` load what the plan saved.

The `tokenizer.json` is read as it is (`PreTrainedTokenizerFast`): transformers 5 rebuilds some SentencePiece tokenizers
from their class name and then splits texts differently.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_shards.formats.errors import UsageError, first_line
from sft_shards.formats.shards import vocabulary_hash

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

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
"""Tokens that end a turn in known families of models; one counts where it is a special token of the tokenizer.

A generation_config.json that lists several wins over these names (see `_stop_tokens`).
"""


@dataclass(frozen=True, kw_only=True)
class TokenizerMetadata:
    """What transformers read from a tokenizer folder."""

    vocab_size: int
    """`len(tokenizer)`, one more than the largest id."""
    vocab_sha256: str
    """Hash of the vocabulary, by which shards and models are compared."""
    eos_id: int | None
    """Id of the end-of-sequence token; None where there is none."""
    pad_id: int | None
    """Id of the padding token; None where there is none."""
    bos_id: int | None
    """Id of the begin-of-sequence token; None where there is none."""
    chat_template: str | None
    """The tokenizer's own Jinja template, if it has one."""
    tool_template: str | None
    """Another template for conversations that offer tools, if there is one."""
    variables: Mapping[str, str]
    """`bos_token`, `eos_token` and so on, by the names that templates use."""
    adds_bos: bool
    """Whether the tokenizer puts a BOS in front of texts by default."""
    control: tuple[str, ...]
    """Every special token, sorted."""
    added: tuple[str, ...]
    """Every other added token, sorted."""
    stop: tuple[str, ...]
    """The tokens that a model of this tokenizer stops on, sorted."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TokenizerMetadata:
        """Return what was saved as JSON by `dataclasses.asdict`.

        Raises:
            KeyError, TypeError: another version saved it.
        """
        return cls(**{**raw, **{name: tuple(raw[name]) for name in ("control", "added", "stop")}})


def load(
    folder: Path, name: str, *, trust_remote_code: bool = False
) -> tuple[TokenizerMetadata, HuggingFaceTokenizer, dict[str, Any]]:
    """Return the metadata of a tokenizer folder, as transformers reads it, Hugging Face's tokenizer, and its JSON.

    The tokenizer has no post-processor (which would add a second BOS, and trims offsets), truncation and padding.

    Args:
        folder: where its files lie.
        name: what messages call it.

    Raises:
        UsageError: the tokenizer cannot be loaded, or has no fast form (and so no offsets).
    """
    from transformers import PreTrainedTokenizerFast

    logging.getLogger("transformers").setLevel(logging.ERROR)
    ready = (folder / "tokenizer.json").is_file() and not trust_remote_code
    try:
        loader: Any = PreTrainedTokenizerFast
        if not ready:
            from transformers import AutoTokenizer as loader  # noqa: N813 - imports every model's configuration
        fast: Any = loader.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UsageError(f"tokenizer {name}: cannot be loaded ({first_line(error)})") from None
    if not getattr(fast, "is_fast", False):
        raise UsageError(f"tokenizer {name}: has no fast form, so it gives no offsets; convert it to a tokenizer.json")
    named = fast.chat_template if isinstance(fast.chat_template, dict) else {"default": fast.chat_template}
    for template in (named.get("default"), named.get("tool_use")):
        if not isinstance(template, (str, type(None))):
            raise UsageError(f"tokenizer {name}: its chat_template is no text; mend tokenizer_config.json")
    added = {str(token.content): token for token in fast.added_tokens_decoder.values()}
    control = {content for content, token in added.items() if token.special} | set(fast.all_special_tokens)
    adds_bos = fast.bos_token_id is not None and fast("a").input_ids[:1] == [fast.bos_token_id]
    backend: HuggingFaceTokenizer = fast.backend_tokenizer
    backend.post_processor = None
    backend.no_truncation()
    backend.no_padding()
    spec = json.loads(backend.to_str())
    vocabulary = _vocabulary(spec, fast)
    found = TokenizerMetadata(
        vocab_size=max(len(fast), 1 + max(vocabulary.values())),
        vocab_sha256=vocabulary_hash(vocabulary),
        eos_id=fast.eos_token_id,
        pad_id=fast.pad_token_id,
        bos_id=fast.bos_token_id,
        chat_template=named.get("default"),
        tool_template=named.get("tool_use"),
        variables={key: str(value) for key, value in fast.special_tokens_map.items() if isinstance(value, str)},
        adds_bos=adds_bos,
        control=tuple(sorted(control)),
        added=tuple(sorted(added.keys() - control)),
        stop=_stop_tokens(fast, folder, control),
    )
    return found, backend, spec


def _vocabulary(spec: Mapping[str, Any], fast: Any) -> dict[str, int]:
    """Return the ids of all tokens, as `get_vocab` of transformers does; mostly from the JSON that was just read."""
    tokens = spec["model"]["vocab"]
    if isinstance(tokens, dict):
        found = tokens | {token["content"]: token["id"] for token in spec["added_tokens"]}
        if len(found) == len(fast):  # the JSON has one token for each id
            return found
    return dict(fast.get_vocab())


def _stop_tokens(fast: Any, folder: Path, control: set[str]) -> tuple[str, ...]:
    """Return EOS, what generation_config.json names, and, unless that is a list, the special tokens in `TERMINATORS`.

    A list of two or more tokens is all that the model stops on: gpt-oss has `<|end|>`, but goes on behind it.
    A single id says less: base models name `<|endoftext|>` alone, whatever token ends a turn in their template.
    """
    named: set[str] = set()
    generation = folder / "generation_config.json"
    if generation.is_file():
        ids = json.loads(generation.read_text("utf-8")).get("eos_token_id")
        for number in ids if isinstance(ids, list) else [ids]:
            token = fast.convert_ids_to_tokens(number) if isinstance(number, int) else None
            if isinstance(token, str):
                named.add(token)
    found = named if len(named) > 1 else named | (control & set(TERMINATORS))
    return tuple(sorted(found | {str(token) for token in [fast.eos_token] if token}))
