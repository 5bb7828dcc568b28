"""How near an answer is to its reference: equal, ROUGE-L (rouge-score) and chrF (sacrebleu).

Both libraries are in the extra `[chat]`. ROUGE-L is counted over words, and over characters in scripts that are
written without spaces, because rouge-score's own tokenizer drops everything but a-z and 0-9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sft_shards.trainer.chat.generation import require

WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)
"""A kana or Chinese character by itself, or a run of other letters and digits."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """An answer beside its reference."""

    exact: bool
    """Equal, white space at the ends aside."""
    rouge_l: float
    """F-measure of the longest common subsequence of words, 0 to 1."""
    chrf: float
    """F-score of character n-grams, 0 to 100."""


class Scorer:
    """Scores answers; DataError where a library is missing."""

    def __init__(self) -> None:
        for package in ("rouge_score", "sacrebleu"):
            require(package)
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics.chrf import CHRF

        self._rouge: Any = RougeScorer(["rougeL"], tokenizer=_Words())
        self._chrf: Any = CHRF()

    def __call__(self, answer: str, reference: str) -> Score:
        """Compare an answer with its reference."""
        return Score(
            exact=answer.strip() == reference.strip(),
            rouge_l=float(self._rouge.score(reference, answer)["rougeL"].fmeasure),
            chrf=float(self._chrf.sentence_score(answer, [reference]).score),
        )


class _Words:
    """The tokenizer that rouge-score is given."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())
