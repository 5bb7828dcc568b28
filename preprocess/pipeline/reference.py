"""Renderings to ids and loss masks. A text is encoded as a whole and the mask read off it: no mask changes a token."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.errors import RecordError, UsageError
from sft_shards.formats.templates import Rendering, Span
from sft_shards.preprocess.pipeline.masks import token_mask
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One sequence."""

    ids: NDArray[np.int32]
    """int32[L]."""
    loss_mask: NDArray[np.uint8]
    """u8[L], 0/1, unshifted: entry i says whether token i, as a target, carries loss."""
    straddling: int
    """Tokens that begin before a trained span and end inside it."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Ids with the characters of the text that each came from."""

    ids: list[int]
    offsets: list[Span]
    """[start, end) in characters; empty where a token stands for no character (SentencePiece's leading space)."""


class Encoder:
    """Encodes renderings with one tokenizer.

    Args:
        straddle: what becomes of a token that begins before a trained span and ends inside it: it carries loss
            (`train`), it does not (`skip`), or the text is cut there and both sides are encoded alone (`split`),
            as inference feeds them.

    Raises:
        UsageError: `split` with a tokenizer that puts something in front of every text it is given.
    """

    def __init__(self, tokenizer: Tokenizer, *, straddle: str = "train") -> None:
        self.tokenizer = tokenizer
        self.straddle = straddle
        if straddle == "split" and not tokenizer.keeps_cuts:
            raise UsageError(
                f"tokenizer {tokenizer.name}: puts a space in front of every text, so texts cannot be cut; "
                "use --straddle train or skip"
            )
        self._control = re.compile(
            "|".join(map(re.escape, sorted(tokenizer.control_tokens, key=len, reverse=True))) or "(?!)"
        )

    def encode(self, renderings: Sequence[Rendering], spans: Sequence[list[Span]]) -> list[Encoded | RecordError]:
        """Encode a batch; each rendering with its trained spans gives a sequence, or the reason why it cannot."""
        plain = [at for at, one in enumerate(renderings) if not one.typed and self.straddle != "split"]
        whole = self.tokenizer.backend.encode_batch([renderings[at].text for at in plain], add_special_tokens=False)
        ready = dict(zip(plain, whole, strict=True))
        out: list[Encoded | RecordError] = []
        for at, (rendering, trained) in enumerate(zip(renderings, spans, strict=True)):
            try:
                if at in ready:
                    pieces = Pieces(ids=ready[at].ids, offsets=ready[at].offsets)
                else:
                    pieces = self._in_pieces(rendering, [start for start, _ in trained])
                out.append(self._masked(pieces, trained))
            except RecordError as error:
                out.append(error.kept())
        return out

    def _masked(self, pieces: Pieces, trained: list[Span]) -> Encoded:
        if not pieces.ids:
            raise RecordError("empty", "the conversation has no tokens")
        offsets = np.asarray(pieces.offsets, dtype=np.int64)
        mask, straddling = token_mask(offsets, trained, train_straddling=self.straddle != "skip")
        return Encoded(ids=np.asarray(pieces.ids, dtype=np.int32), loss_mask=mask, straddling=straddling)

    def _in_pieces(self, rendering: Rendering, starts: list[int]) -> Pieces:
        """Encode with typed control tokens as text, and with cuts at the starts of the spans if so asked."""
        cuts = starts if self.straddle == "split" else []
        if not rendering.typed:
            return self._cut(rendering.text, (), cuts, self.tokenizer.literal_backend)
        neutral = list(rendering.text)
        for start, end in rendering.typed:
            neutral[start:end] = "x" * (end - start)
        check = "".join(neutral)
        if not cuts:
            # Cutting at control tokens leaves the other tokens alone for every tokenizer we know of; see for yourself.
            whole = self.tokenizer.backend.encode(check, add_special_tokens=False)
            if self._cut(check, (), cuts, self.tokenizer.literal_backend).ids != whole.ids:
                raise RecordError("typed_control_token", "this tokenizer cannot keep a typed control token as text")
        pieces = self._cut(rendering.text, rendering.typed, cuts, self.tokenizer.literal_backend)
        for token in {rendering.text[start:end] for start, end in rendering.typed}:
            number = self.tokenizer.backend.token_to_id(token)
            assert number is not None, "a control token has an id"
            if pieces.ids.count(number) != len(re.findall(re.escape(token), check)):
                raise RecordError("typed_control_token", f"{token} comes out as the control token itself")
        return pieces

    def _cut(self, text: str, typed: Sequence[Span], cuts: Sequence[int], literal: Backend) -> Pieces:
        """Encode the text cut at its control tokens (typed ones excepted) and at `cuts`, which rise."""
        inside = {place for start, end in typed for place in range(start, end)}
        bounds: list[tuple[int, int, bool]] = []
        begin = 0
        for match in self._control.finditer(text):
            if match.start() in inside:
                continue
            bounds += [(begin, match.start(), False), (match.start(), match.end(), True)]
            begin = match.end()
        bounds.append((begin, len(text), False))
        ids: list[int] = []
        offsets: list[Span] = []
        for start, end, control in bounds:
            inner = [start, *cuts[bisect_right(cuts, start) : bisect_left(cuts, end)], end]
            for left, right in pairwise(inner):
                if left == right:
                    continue
                backend: Any = self.tokenizer.backend if control else literal
                encoding = backend.encode(text[left:right], add_special_tokens=False)
                ids += encoding.ids
                offsets += [(left + one, left + other) for one, other in encoding.offsets]
        return Pieces(ids=ids, offsets=offsets)
