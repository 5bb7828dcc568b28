"""Token ids of a rendering, piece by piece: control tokens by their number, all between two of them as plain text."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

Span = tuple[int, int]


class Encoder:
    """Encodes with a vocabulary that has no added tokens, so that nothing typed can become one.

    Args:
        folder: a tokenizer whose added tokens strip no white space. Each text between two of them is encoded by
            itself, as tokenizers does with tokens that are found before anything is normalized.
        control: matches the added tokens.
        stand_ins: the words that stand for each added token where it is text.
    """

    def __init__(self, folder: Path, control: re.Pattern[str], *stand_ins: dict[str, str]) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        self.numbers = {one["content"]: one["id"] for one in content["added_tokens"]}
        self.bare = Tokenizer.from_str(json.dumps({**content, "added_tokens": [], "post_processor": None}))
        self.control = control
        self.typed = {name: token for names in stand_ins for token, name in names.items()}
        self.reveal_pattern = re.compile("|".join(map(re.escape, self.typed)))

    def reveal(self, text: str) -> str:
        """Return a rendering with typed control tokens put back."""
        return self.reveal_pattern.sub(lambda found: self.typed[found[0]], text)

    def encode(self, whole: str) -> tuple[list[int], list[Span]]:
        """Return ids, and their spans in the rendering `whole`, stand-ins and all."""
        ids: list[int] = []
        spans: list[Span] = []
        at = 0
        for control in [*self.control.finditer(whole), None]:
            end = control.start() if control else len(whole)
            if at < end:
                self._encode_text(whole, at, end, ids, spans)
            if control:
                ids.append(self.numbers[control[0]])
                spans.append(control.span())
                at = control.end()
        return ids, spans

    def _encode_text(self, whole: str, start: int, end: int, ids: list[int], spans: list[Span]) -> None:
        shown, read = "", start
        starts: list[int] = []  # where character i of `shown` begins in `whole`, and where it ends
        ends: list[int] = []
        for name in [*self.reveal_pattern.finditer(whole, start, end), None]:
            until = name.start() if name else end
            shown += whole[read:until]
            starts += range(read, until)
            ends += range(read + 1, until + 1)
            if name:
                token = self.typed[name[0]]
                shown += token
                starts += [name.start()] * len(token)
                ends += [name.end()] * len(token)
                read = name.end()
        encoded = self.bare.encode(shown, add_special_tokens=False)
        ids += encoded.ids
        for a, b in encoded.offsets:
            first = starts[a] if a < len(starts) else end
            spans.append((first, ends[b - 1] if a < b else first))


def load(folder: Path) -> PreTrainedTokenizerFast:
    """Return transformers' tokenizer of a folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
