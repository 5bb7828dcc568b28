"""One call of the benchmark: the corpus that was made for it, and how its children are started."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.throughput.child import Order, start
from benchmarks.throughput.contenders import CONTENDERS
from benchmarks.throughput.corpus import Corpus


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The corpus, and what the command line says of contenders."""

    corpus: Corpus
    rounds: int
    data: Path
    """Where the corpus was read from."""
    roles: dict[str, str] = field(default_factory=dict)
    """What `--map-role` says."""
    checkouts: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    """The Python of a contender that needs another environment."""
    templates: Path | None = None
    """For the mode of that name: a folder of templates."""
    sentencepiece: Path | None = None
    """There: the tokenizer of those families whose vocabulary is SentencePiece's."""
    kind: str = "text-only"
    """There: the kind of records, of `kinds.KINDS`."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def run(
        self,
        name: str,
        *,
        part: Path,
        one: Path | None = None,
        reference: Path | None = None,
        keep: Path | None = None,
        stages: bool = False,
        **settings: Any,
    ) -> dict[str, Any]:
        """Run a contender over a folder, in a fresh process; NotRunError if it cannot be run."""
        told = {"tokenizer": str(self.corpus.tokenizer), "marked": str(self.corpus.marked)}
        more = {"checkout": self.checkouts.get(name), "backend": CONTENDERS[name].backend}
        order = Order(
            contender=name,
            scratch=str(self.corpus.folder / f"run-{next(self.numbers)}"),
            one=str(one or self.corpus.part("one")),
            corpus=str(part),
            settings={**told, **more, **settings},
            reference=str(reference) if reference else None,
            keep=str(keep) if keep else None,
            stages=stages,
        )
        return start(order, self.programs.get(name, sys.executable))


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """A Markdown table, in the form that docs/performance.md holds."""
    print(f"| {' | '.join(head)} |")
    print("|" + "---|" * len(head))
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
