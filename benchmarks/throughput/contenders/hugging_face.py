"""Hugging Face: the loop that people write, and `datasets.map` with the same call."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.throughput.contenders.contender import Contender, Sequences, Settings, from_lists


class Loop(Contender):
    """`json.loads`, `apply_chat_template` with its mask, arrays to a file, a record at a time."""

    def __init__(self, settings: Settings) -> None:
        from transformers import AutoTokenizer

        super().__init__(settings)
        self.tokenizer = AutoTokenizer.from_pretrained(settings.marked)

    def row(self, record: dict[str, Any]) -> tuple[list[int], list[int]]:
        """The ids of a record and their mask, which is empty where there is none."""
        found = tokenized(self.tokenizer, joined(record["messages"]), record.get("tools"))
        return found["input_ids"], found["assistant_masks"]

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        lengths: list[int] = []
        with (
            open(source / "messages.jsonl", encoding="utf-8") as file,
            open(target / "ids.bin", "wb") as ids,
            open(target / "mask.bin", "wb") as masks,
        ):
            for line in file:
                found, mask = self.row(json.loads(line))
                np.asarray(found, dtype=np.int32).tofile(ids)
                np.asarray(mask, dtype=np.uint8).tofile(masks)
                lengths.append(len(found))
        np.save(target / "lengths.npy", np.asarray(lengths))

    def read(self, target: Path) -> Sequences:  # noqa: D102
        mask = np.fromfile(target / "mask.bin", dtype=np.uint8)
        return Sequences(
            lengths=np.load(target / "lengths.npy"),
            ids=np.fromfile(target / "ids.bin", dtype=np.int32).astype(np.int64),
            mask=mask if len(mask) else None,
        )


class IdsAlone(Loop):
    """The same without masks, for templates that do not mark what the assistant says; on the day that ours writes."""

    def __init__(self, settings: Settings) -> None:
        from transformers.utils import chat_template_utils

        from sft_shards.formats.templates.sandbox import DAY

        super().__init__(settings)
        now = SimpleNamespace(now=lambda: DAY)
        vars(chat_template_utils)["datetime"] = now  # where its `strftime_now` asks for the day

    def row(self, record: dict[str, Any]) -> tuple[list[int], list[int]]:  # noqa: D102
        return self.tokenizer.apply_chat_template(record["messages"], record.get("tools"), return_dict=False), []


class DatasetsMap(Contender):
    """`load_dataset("json")`, and `map` with `apply_chat_template`."""

    def __init__(self, settings: Settings) -> None:
        from datasets import disable_progress_bars
        from transformers import AutoTokenizer

        super().__init__(settings)
        disable_progress_bars()
        self.tokenizer = AutoTokenizer.from_pretrained(settings.marked)

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        from datasets import load_dataset

        tokenizer = self.tokenizer

        def tokenize(row: dict[str, Any]) -> dict[str, Any]:
            out = tokenized(tokenizer, row["messages"])
            return {"input_ids": out["input_ids"], "assistant_masks": out["assistant_masks"]}

        files, cache = str(source / "messages.jsonl"), str(target / "cache")
        data = load_dataset("json", data_files=files, split="train", cache_dir=cache)
        data.map(tokenize, remove_columns=data.column_names).save_to_disk(str(target / "out"))

    def read(self, target: Path) -> Sequences:  # noqa: D102
        from datasets import load_from_disk

        data = load_from_disk(str(target / "out"))
        return from_lists(data["input_ids"], data["assistant_masks"])


def joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with content parts as one text, which is what most templates take."""
    if not any(isinstance(one.get("content"), list) for one in messages):
        return messages
    return [{**one, "content": "".join(part["text"] for part in one["content"])} for one in messages]


def tokenized(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Any:
    """Ids and mask of a conversation."""
    return tokenizer.apply_chat_template(
        messages, tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
