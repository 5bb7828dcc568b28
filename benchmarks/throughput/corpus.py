"""The corpus: conversations that every contender can take, as files, and the tokenizer folders that they are given."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.records import FieldMap, detect
from sft_shards.preprocess.sources import find_sources, sample

EVERY = 1 << 40
QWEN_TURN = "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
QWEN_MARKED = (
    "{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}{% generation %}"
    "{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}{%- else %}" + QWEN_TURN + "{%- endif %}"
)
"""How Qwen2.5's template writes a turn, and the same with the answer marked for Hugging Face's mask."""

Message = dict[str, Any]


class CannotTakeError(ValueError):
    """A conversation that some contender cannot take; its text is the reason that is counted."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where the files are, and what they hold.

    `corpus`, `quarter` (its first quarter) and `one` (a record that is not in it) are folders with the same
    conversations twice: `messages.jsonl` holds {"messages": …} and `text.jsonl` the rendered {"text": …}.
    """

    folder: Path
    conversations: int
    bytes: int
    """UTF-8 bytes of rendered text."""
    left_out: dict[str, int]
    """Records that some contender could not take, by reason."""

    @property
    def tokenizer(self) -> Path:
        """The tokenizer as it was given."""
        return self.folder / "tokenizer"

    @property
    def marked(self) -> Path:
        """The same tokenizer, with `{% generation %}` in its template."""
        return self.folder / "marked"

    def part(self, name: str) -> Path:
        """The folder of `corpus`, `quarter` or `one`."""
        return self.folder / name

    def messages(self) -> list[list[Message]]:
        """The conversations of the corpus."""
        with open(self.part("corpus") / "messages.jsonl", encoding="utf-8") as file:
            return [json.loads(line)["messages"] for line in file]


def make(
    data: Path,
    folder: Path,
    tokenizer: Path,
    *,
    marked: Path | None,
    roles: dict[str, str],
    size: float,
    turns: int = 0,
) -> Corpus:
    """Write the corpus, of at most `size` bytes of rendered text, and both tokenizer folders.

    Conversations have so many `turns` or more.
    """
    renderer = PreTrainedTokenizerFast.from_pretrained(str(tokenizer))
    control = [token for token in renderer.all_special_tokens if token]
    fields = FieldMap(roles=roles)
    found: dict[str, list[Message]] = {}  # by rendered text, so that no conversation is there twice
    left: Counter[str] = Counter()
    for source in find_sources([str(data)]):
        rows = [(number, row) for number, row in sample(source, EVERY) if not isinstance(row, RecordError)]
        try:
            record_format = detect(rows[:200], fields, source.path)
        except UsageError:
            left["in files of no known format"] += len(rows)
            continue
        for _, row in rows:
            try:
                messages = [without_alpaca_fields(message) for message in record_format.read(row, fields).messages()]
                if len(messages) < turns:
                    left[f"with less than {turns} turns"] += 1
                    continue
                text = rendered(renderer, messages, control)
            except RecordError:
                left["that are no conversation"] += 1
                continue
            except CannotTakeError as error:
                left[str(error)] += 1
                continue
            left["that were there already"] += text in found
            found.setdefault(text, messages)
    order = list(found.items())
    if len(order) < 5:
        raise SystemExit(f"{data}: {len(order)} conversations that every contender can take; 5 are needed")
    random.Random(0).shuffle(order)
    kept = write_parts(order, folder, int(size))
    template = mark_answers(renderer.chat_template, marked)
    for name, own in (("tokenizer", None), ("marked", template)):
        shutil.copytree(tokenizer, folder / name, copy_function=shutil.copyfile)
        os.chmod(folder / name, 0o755)
        if own is not None:
            path = folder / name / "tokenizer_config.json"
            path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"chat_template": own}), "utf-8")
    return Corpus(
        folder=folder,
        conversations=len(kept),
        bytes=sum(len(text.encode()) for text, _ in kept),
        left_out=dict(left),
    )


def without_alpaca_fields(message: Message) -> Message:
    """A message without Alpaca's own fields, whose texts stand in its content as well."""
    return {key: value for key, value in message.items() if key not in ("instruction", "input")}


def rendered(tokenizer: Any, messages: list[Message], control: list[str]) -> str:
    """The text of messages that every contender can take; CannotTakeError with what is in the way."""
    if any(set(message) - {"role", "content"} or not message["content"] for message in messages):
        raise CannotTakeError("with tools, reasoning, names or empty turns")
    if any(token in message["content"] for message in messages for token in control):
        raise CannotTakeError("with a typed control token")
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:
        raise CannotTakeError("that the template refuses") from None


def mark_answers(template: str, path: Path | None) -> str:
    """The template with `{% generation %}` around answers: the one in the file, or made from one like Qwen2.5's."""
    if path is not None:
        return path.read_text("utf-8")
    if QWEN_TURN not in template:
        raise SystemExit("the template is not like Qwen2.5's; give its {% generation %} version with --marked FILE")
    return template.replace(QWEN_TURN, QWEN_MARKED)


def write_parts(order: list[tuple[str, list[Message]]], folder: Path, limit: int) -> list[tuple[str, list[Message]]]:
    """Write the corpus up to a number of bytes, its first quarter, and one record that is not in it."""
    kept: list[tuple[str, list[Message]]] = []
    size = 0
    while size < limit and len(order) > len(kept) + 1:
        kept.append(order[len(kept)])
        size += len(kept[-1][0].encode())
    for name, rows in (("corpus", kept), ("quarter", kept[: max(1, len(kept) // 4)]), ("one", order[-1:])):
        (folder / name).mkdir(parents=True)
        with (
            open(folder / name / "messages.jsonl", "w", encoding="utf-8") as messages,
            open(folder / name / "text.jsonl", "w", encoding="utf-8") as texts,
        ):
            for text, conversation in rows:
                messages.write(json.dumps({"messages": conversation}, ensure_ascii=False) + "\n")
                texts.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return kept
