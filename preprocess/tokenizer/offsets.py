"""Encode texts with Hugging Face's tokenizers, saying which characters each token came from.

A text is encoded as a whole wherever that is right. Two things cannot be had from the whole, so the text is cut and
the pieces are encoded: a control token that somebody typed, which must become the tokens of its letters, and a cut that
the caller asks for (`--straddle split`). Cutting at the control tokens of a template changes no other token: every
tokenizer cuts a text there before it does anything else, which `encode_in_pieces` checks on the text itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates import Span
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer


@dataclass(frozen=True, kw_only=True)
class TokensWithOffsets:
    """The tokens of one text.

    "naïve" in tokens of three, one and two bytes has the offsets [(0, 2), (2, 3), (3, 5)]: characters, not bytes.
    """

    ids: list[int]
    """Token ids."""
    offsets: list[Span]
    """For each token the characters of the text that it came from, [start, end); empty where it stands for none
    (SentencePiece's leading space)."""


class OffsetEncoder:
    """Encodes texts with one tokenizer.

    Args:
        tokenizer: the tokenizer.
        control: the tokens that are text where somebody typed them.
    """

    def __init__(self, tokenizer: Tokenizer, control: Collection[str]) -> None:
        self._tokenizer = tokenizer
        self._tokens = control
        self._control = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)")

    def encode(self, texts: Sequence[str]) -> list[TokensWithOffsets]:
        """Encode texts as they are; a control token in a text becomes its id, whoever wrote it."""
        encodings = self._tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
        return [TokensWithOffsets(ids=one.ids, offsets=one.offsets) for one in encodings]

    def encode_in_pieces(self, text: str, typed: Sequence[Span], cuts: Sequence[int]) -> TokensWithOffsets:
        """Encode a text with typed control tokens as text, cut at certain places.

        Args:
            text: the rendering.
            typed: where control tokens stand that somebody typed, in characters.
            cuts: places, rising, in characters, at which both sides are encoded alone.

        Raises:
            RecordError: `typed_control_token`, the tokenizer cannot keep one as text.
        """
        if not typed:
            return self._encode_pieces(text, (), cuts)
        outside = zip([0, *(end for _, end in typed)], [*typed, (len(text), len(text))], strict=True)
        check = "".join(text[left:start] + "x" * (end - start) for left, (start, end) in outside)
        if not cuts:
            whole = self._tokenizer.backend.encode(check, add_special_tokens=False).ids
            if self._encode_pieces(check, (), cuts).ids != whole:
                raise RecordError("typed_control_token", "this tokenizer cannot keep a typed control token as text")
            del whole  # a long text has millions
        pieces = self._encode_pieces(text, typed, cuts)
        for token in {text[start:end] for start, end in typed}:
            number = self._tokenizer.backend.token_to_id(token)
            assert number is not None, "a control token has an id"
            if pieces.ids.count(number) != len(re.findall(re.escape(token), check)):
                raise RecordError("typed_control_token", f"{token} comes out as the control token itself")
        return pieces

    def _encode_pieces(self, text: str, typed: Sequence[Span], cuts: Sequence[int]) -> TokensWithOffsets:
        """Encode the text cut at the template's control tokens and at `cuts`.

        "<s>ab<s>" with a cut at 4 is encoded as "<s>", "a", "b", "<s>"; with the last token typed, as "<s>", "a",
        "b<s>", where "b<s>" is text.
        """
        starts = [start for start, _ in typed]
        bounds: list[tuple[int, int, bool]] = []
        begin = 0
        for match in self._control.finditer(text):
            before = bisect_right(starts, match.start()) - 1
            if before >= 0 and match.start() < typed[before][1]:
                continue
            bounds += [(begin, match.start(), False), (match.start(), match.end(), True)]
            begin = match.end()
        bounds.append((begin, len(text), False))
        ids: list[int] = []
        offsets: list[Span] = []
        for start, end, control in bounds:
            places = [start, *cuts[bisect_right(cuts, start) : bisect_left(cuts, end)], end]
            backend: Any = self._tokenizer.backend if control else self._literal
            for left, right in pairwise(places):
                if left < right:
                    encoding = backend.encode(text[left:right], add_special_tokens=False)
                    ids += encoding.ids
                    offsets += [(left + first, left + last) for first, last in encoding.offsets]
        return TokensWithOffsets(ids=ids, offsets=offsets)

    @cached_property
    def _literal(self) -> HuggingFaceTokenizer:
        return self._tokenizer.literal_backend(frozenset(self._tokens))
