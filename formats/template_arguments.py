"""Arguments of a chat template beside the conversation: `enable_thinking`, `reasoning_effort` and the like.

`apply_chat_template` takes them by name, and every rendering gets them, that of the generation prompt too. They are
named in the call (`--template-arg NAME=JSON`), in YAML, and in records (`chat_template_kwargs`). Of these the one that
is nearest to the record decides, name by name. Null is as good as not given, everywhere: a table cannot tell the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.nesting import check_nesting, read_json

RESERVED = frozenset(
    {
        "messages",
        "conversation",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
        "additional_special_tokens",
    }
)
"""Names that `apply_chat_template` or the tokenizer gives a meaning."""
PYTHON = {"True": "true", "False": "false", "None": "null"}


def parse_arguments(words: Iterable[str], option: str) -> dict[str, Any]:
    """Read `NAME=JSON` words.

    >>> parse_arguments(["enable_thinking=false", 'reasoning_effort="high"'], "--template-arg")
    {'enable_thinking': False, 'reasoning_effort': 'high'}

    Raises:
        UsageError: one has another form, is not JSON, or names something that is not for an argument.
    """
    out: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise UsageError(f"{option} {word}: must have the form NAME=JSON, such as enable_thinking=false")
        try:
            value = json.loads(text, parse_constant=_no_constant)
            check_nesting(value)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{option} {word}: {_hint(name, text, option, error)}") from None
        out[name] = value
    try:
        return checked(out)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from None


def read_arguments(value: object, where: str) -> dict[str, Any]:
    """Read what a record gives: an object, or a JSON text of one; null and an empty text are no arguments.

    Raises:
        RecordError: `wrong_type`, `broken_json`, `nested_too_deeply`.
    """
    if isinstance(value, str):
        value = read_json(value, where) if value.strip() else None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecordError("wrong_type", f"{where} is {type(value).__name__}, not an object of template arguments")
    given = {name: one for name, one in value.items() if one is not None}
    check_nesting(given)
    try:
        return checked(given)
    except ValueError as error:
        raise RecordError("wrong_type", f"{where}: {error}") from None


def checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments whose names and values can be passed to a template.

    Raises:
        ValueError: a name is reserved or none that a template can use, or a value is null or not JSON.
    """
    for name, value in arguments.items():
        if name in RESERVED:
            raise ValueError(f"{name}: has a meaning of its own in every rendering; leave it out")
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{name!r:.60}: is no name of a template's argument")
        if value is None:
            raise ValueError(f"{name}: null is as good as not given; leave it out")
    try:
        canonical(arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a value is not JSON ({error})") from None
    return arguments


def canonical(arguments: Mapping[str, Any]) -> str:
    """Return arguments as a text that is the same for equal ones; 1, 1.0 and true are different.

    >>> canonical({"b": 1, "a": True})
    '{"a":true,"b":1}'
    """
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def _hint(name: str, text: str, option: str, error: Exception) -> str:
    """Say what is wrong with a value, and how it is written where that can be guessed."""
    if text in PYTHON:
        return f"not JSON; write {name}={PYTHON[text]}"
    if text.strip() and text.strip()[0] not in "[{\"'" and "\n" not in text:
        return f"not JSON; a text needs quotes of its own: {option} '{name}={json.dumps(text, ensure_ascii=False)}'"
    said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return f"not JSON ({said or type(error).__name__})"
