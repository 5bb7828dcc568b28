"""Tables: our tokens in rows, with a column for each peer, and one line on how each differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import Case
from benchmarks.peers.pairs import Pairs
from benchmarks.peers.projects import PROJECTS


def table(reference: Pairs, others: list[Pairs]) -> list[tuple[int, list[str]]]:
    """Rows of (id, a cell for each): ● carries loss, · does not, blank where a peer has no such token there."""
    width = 1 + len(others)
    own: list[list[str]] = [["●" if trained else "·"] + [" "] * len(others) for _, trained in reference]
    extra: list[list[tuple[int, list[str]]]] = [[] for _ in range(len(reference) + 1)]
    for column, pairs in enumerate(others, 1):
        ids, theirs = [token for token, _ in reference], [token for token, _ in pairs]
        for kind, a, b, c, d in SequenceMatcher(None, ids, theirs, autojunk=False).get_opcodes():
            if kind == "equal":
                for at, other in zip(range(a, b), range(c, d), strict=True):
                    own[at][column] = "●" if pairs[other][1] else "·"
            else:
                insert(extra[b], pairs[c:d], column, width)
    rows: list[tuple[int, list[str]]] = []
    for at, (token, _) in enumerate(reference):
        rows += [*extra[at], (token, own[at])]
    return rows + extra[len(reference)]


def insert(rows: list[tuple[int, list[str]]], pairs: Pairs, column: int, width: int) -> None:
    """Put tokens that we have not into the rows at one place, sharing a row with peers that have the same."""
    at = 0
    for token, trained in pairs:
        shared = next((row for row in range(at, len(rows)) if rows[row][0] == token), None)
        if shared is None:
            rows.insert(at, (token, [" "] * width))
            shared = at
        rows[shared][1][column] = "●" if trained else "·"
        at = shared + 1


def verdict(reference: Pairs, result: dict[str, Any], show: Callable[[list[int]], str]) -> str:
    """One line on how a result differs from ours."""
    if "error" in result:
        return result["error"][:150]
    pairs = result["pairs"]
    ids, theirs = [token for token, _ in reference], [token for token, _ in pairs]
    more: list[int] = []
    less: list[int] = []
    added: list[int] = []
    missing: list[int] = []
    for kind, a, b, c, d in SequenceMatcher(None, ids, theirs, autojunk=False).get_opcodes():
        if kind == "equal":
            for at, other in zip(range(a, b), range(c, d), strict=True):
                if pairs[other][1] != reference[at][1]:
                    (more if pairs[other][1] else less).append(ids[at])
        else:
            missing += ids[a:b]
            added += theirs[c:d]
            less += [token for token, trained in reference[a:b] if trained]
            more += [token for token, trained in pairs[c:d] if trained]
    if not any(trained for _, trained in pairs):
        return f"{'other ids; ' if added or missing else ''}nothing carries loss"
    parts = []
    if added or missing:
        parts.append(f"other ids: {len(added)} added, {len(missing)} missing")
    if less:
        parts.append(f"no loss on {show(less)}")
    if more:
        parts.append(f"loss on {show(more)} too")
    return "; ".join(parts) or "the same"


def print_case(case: Case, reference: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    """The table of a case, and a line on how each peer differs."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(case["folder"]) / "tokenizer.json"))
    print(f"## {case['name']} ({case['tokenizer']})\n")
    if "error" in reference:
        print(f"ours: {reference['error']}\n")
        return
    own: Pairs = [tuple(pair) for pair in reference["pairs"]]
    shown = {name: [tuple(pair) for pair in one["pairs"]] for name, one in results.items() if "pairs" in one}
    letters = dict(zip(shown, "BCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False))

    def show(ids: list[int]) -> str:
        texts = [json.dumps(token_text(tokenizer, token), ensure_ascii=False) for token in ids]
        return " ".join(texts) if len(texts) <= 6 else f"{' '.join(texts[:5])} and {len(texts) - 5} more"

    print(f"{'token':24} A {' '.join(letters.values())}")
    for token, cells in table(own, list(shown.values())):
        print(f"{json.dumps(token_text(tokenizer, token), ensure_ascii=False):24} {' '.join(cells)}".rstrip())
    print("\nA  ours")
    for name, result in results.items():
        print(f"{letters.get(name, '-')}  {PROJECTS[name].title}: {verdict(own, result, show)}")
    print()


def token_text(tokenizer: Any, token: int) -> str:
    """A token as it reads, with the byte-level alphabet's space and newline put back."""
    text = tokenizer.id_to_token(token) or str(token)
    return text.replace("Ġ", " ").replace("Ċ", "\n")
