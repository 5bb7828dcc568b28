"""How a masked text is shown: trained spans between ⟦ ⟧, a line for each token, or an object of JSON.

    coloured(masked_spans(…), colour=False)        # 'Hi there ⟦Hello!⟧'

A run, its preview and `inspect` show texts alike. This imports nothing that a run does not import anyhow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.masked_text import MaskedSpan, masked_spans
from sft_shards.formats.terminal import printable, printable_text
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer


def coloured(parts: list[MaskedSpan], *, colour: bool) -> str:
    """Join spans to one text: trained ones between ⟦ ⟧, and with colours green as well, the rest dim.

    Colour is never the only sign. Nothing in the texts can colour or bracket them in another way.
    """
    pieces = []
    for part in parts:
        text = printable_text(part.text).replace("⟦", r"\u27e6").replace("⟧", r"\u27e7")
        text = f"⟦{text}⟧" if part.trained else text
        if colour:
            text = click.style(text, fg="green", bold=True) if part.trained else click.style(text, dim=True)
        pieces.append(text)
    return "".join(pieces)


def token_lines(
    ids: NDArray[Any], loss_mask: NDArray[np.uint8], tokenizer: Tokenizer, *, colour: bool
) -> Iterator[str]:
    """Give a line for each token: its place, its id, `+` where it carries loss, and its text.

    A token of some bytes of a character is shown by the replacement character; only together are they a text.
    """
    width = len(str(max(len(ids) - 1, 0)))
    wide = len(str(int(ids.max()))) if len(ids) else 1
    for place, (number, trained) in enumerate(zip(ids.tolist(), loss_mask.tolist(), strict=True)):
        text = printable(tokenizer.decode(np.array([number])))
        line = f"{place:>{width}}  {number:>{wide}}  {'+' if trained else ' '}  |{text}|"
        yield click.style(line, fg="green" if trained else None, dim=not trained) if colour else line


def as_object(ids: NDArray[Any], loss_mask: NDArray[np.uint8], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return ids, int[L], mask, u8[L], and the text in spans, as `--json` prints them."""
    spans = masked_spans(ids, loss_mask, tokenizer)
    return {
        "tokens": ids.tolist(),
        "loss_mask": loss_mask.tolist(),
        "text": [{"text": span.text, "trained": span.trained} for span in spans],
    }
