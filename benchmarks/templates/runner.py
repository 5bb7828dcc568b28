"""Runs the conversations over templates: a process for each template, with a time limit; what is done stays done."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.templates.conversations import Case, with_names_in_ids
from benchmarks.templates.oracle import Expected, Oracle, judge
from benchmarks.templates.pipelines import Outcome, Pipelines
from benchmarks.templates.tokenizers import family_of, make_tokenizer
from sft_shards.formats.errors import DataError, UsageError

FOR_TOOLS = re.compile(r"(?:hermes|command-r-plus).*tool_use", re.IGNORECASE)
"""Names of templates that are published as a tokenizer's second one."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one conversation under one template.

    Attributes:
        verdict: "exact", "refused", "wrong" or "unjudged".
        reason: the reject's reason, or what is wrong.
        detail: the reject's detail, or both masks as ⟦ ⟧ in the text.
        obstacle: why the template cannot express a conversation that was refused; "" if it can.
    """

    template: str
    family: str
    case: str
    agentic: bool
    parallel: bool
    verdict: str
    reason: str
    detail: str = ""
    obstacle: str = ""


@dataclass(frozen=True, kw_only=True)
class Bases:
    """Folders with a byte-level tokenizer.json, and with one of SentencePiece's kind."""

    byte_level: Path
    sentencepiece: Path


def judge_template(path: Path, bases: Bases, cases: Sequence[Case]) -> list[Verdict]:
    """Return a verdict for each conversation under one template."""
    source = path.read_text()
    family = family_of(path.stem, source)
    if family.ids_alone:
        cases = [with_names_in_ids(case) if case.agentic else case for case in cases]
    for_tools = FOR_TOOLS.search(path.stem) is not None

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = bases.sentencepiece if family.sentencepiece else bases.byte_level
        make_tokenizer(base, source, family, folder, for_tools=for_tools)
        oracle = Oracle(folder, family.stops)
        try:
            pipelines = Pipelines(folder)
            found = judge_cases(oracle, pipelines, cases)
        except (UsageError, DataError) as error:
            found = [("refused", "job refused", str(error).replace(name, "FOLDER"))] * len(cases)
        obstacles = [
            oracle.obstacle(case.record["messages"], case.record.get("tools")) if verdict == "refused" else ""
            for case, (verdict, _, _) in zip(cases, found, strict=True)
        ]
    about = {"template": path.stem, "family": family.name}
    return [
        Verdict(
            **about,
            case=case.name,
            agentic=case.agentic,
            parallel=case.parallel,
            verdict=verdict,
            reason=why,
            detail=more,
            obstacle=obstacle,
        )
        for case, (verdict, why, more), obstacle in zip(cases, found, obstacles, strict=True)
    ]


def judge_cases(oracle: Oracle, pipelines: Pipelines, cases: Sequence[Case]) -> list[tuple[str, str, str]]:
    """Return verdict, reason and detail of each conversation."""
    out = []
    for case, got, other in zip(cases, pipelines.reference(cases), pipelines.batch(cases), strict=True):
        if (got.ids, got.loss_mask, got.reason) != (other.ids, other.loss_mask, other.reason):
            detail = f"reference: {shown(oracle, got)}\nbatch: {shown(oracle, other)}"
            out.append(("wrong", "batch path and reference path differ", detail))
        elif got.reason:
            out.append(("refused", got.reason, got.detail))
        else:
            out.append(judge_accepted(oracle, case, got))
    return out


def judge_accepted(oracle: Oracle, case: Case, got: Outcome) -> tuple[str, str, str]:
    """Return verdict, reason and detail of a conversation that the product accepted."""
    try:
        expected = oracle.expect(case.record["messages"], case.record.get("tools"))
    except Exception as error:  # whatever a template raises
        return "wrong", f"transformers cannot render it: {type(error).__name__}", str(error)[:300]
    found = [judge(one, list(got.ids), list(got.loss_mask)) for one in expected]
    if "exact" in found:
        return "exact", "", ""
    detail = f"written:  {shown(oracle, got)}\nexpected: {shown_expected(oracle, expected[0])}"
    if "unjudged" in found:
        return "unjudged", expected[found.index("unjudged")].unjudged, detail
    return "wrong", found[0], detail


def shown(oracle: Oracle, got: Outcome) -> str:
    """Return a sequence as text, what is trained between ⟦ and ⟧."""
    return f"refused ({got.reason})" if got.reason else marked(oracle, list(got.ids), list(got.loss_mask))


def shown_expected(oracle: Oracle, expected: Expected) -> str:
    """Return what was expected as text, and what the rendering has lost."""
    if expected.unjudged and not expected.ids:
        return repr(expected.text)
    mask = [int(at in expected.must) for at in range(len(expected.ids))]
    return marked(oracle, expected.ids, mask) + (f" (lost: {', '.join(expected.lost)})" if expected.lost else "")


def marked(oracle: Oracle, ids: list[int], mask: list[int]) -> str:
    """Return tokens as text, those of the mask between ⟦ and ⟧."""
    out, at = "", 0
    while at < len(ids):
        end = next((one for one in range(at, len(ids)) if mask[one] != mask[at]), len(ids))
        text = oracle.tokenizer.decode(ids[at:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        out += f"⟦{text}⟧" if mask[at] else text
        at = end
    return repr(out)


def run(paths: Sequence[Path], bases: Bases, cases: Sequence[Case], results: Path, jobs: int, limit: float) -> None:
    """Write a file of verdicts for each template to a folder; templates that have one there are not run again.

    Args:
        jobs: how many processes run at a time.
        limit: seconds after which a process is ended; its conversations count as wrong.
    """
    results.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("fork")
    waiting = [path for path in paths if not target_of(results, path, cases).exists()]
    running: list[tuple[BaseProcess, Path, float]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            path = waiting.pop(0)
            process = context.Process(target=_write, args=(path, bases, cases, target_of(results, path, cases)))
            process.start()
            running.append((process, path, time.monotonic()))
        time.sleep(0.05)
        still = []
        for process, path, begun in running:
            late = time.monotonic() - begun > limit
            if process.is_alive() and not late:
                still.append((process, path, begun))
                continue
            if process.is_alive():
                process.kill()
            process.join()
            target = target_of(results, path, cases)
            if not target.exists():
                why = "took too long" if late else f"the process ended with {process.exitcode}"
                save(target, [_failed(path, case, why) for case in cases])
        running = still


def target_of(results: Path, path: Path, cases: Sequence[Case]) -> Path:
    """Return the file of a template's verdicts: its name changes with the template and with the conversations."""
    said = json.dumps([[case.name, case.record] for case in cases], sort_keys=True)
    key = hashlib.sha256((path.read_text() + said).encode()).hexdigest()[:12]
    return results / f"{path.stem}.{key}.json"


def verdicts(results: Path, paths: Sequence[Path], cases: Sequence[Case]) -> Iterator[Verdict]:
    """Yield all verdicts of templates that were run."""
    for path in paths:
        target = target_of(results, path, cases)
        for row in json.loads(target.read_text()) if target.exists() else ():
            yield Verdict(**row)


def reading_calls(paths: Sequence[Path]) -> frozenset[str]:
    """Return the names of the templates that read tool calls."""
    return frozenset(path.stem for path in paths if "tool_calls" in path.read_text())


def _failed(path: Path, case: Case, why: str) -> Verdict:
    family = family_of(path.stem, path.read_text()).name
    about = {
        "template": path.stem,
        "family": family,
        "case": case.name,
        "agentic": case.agentic,
        "parallel": case.parallel,
    }
    return Verdict(**about, verdict="wrong", reason=why)


def _write(path: Path, bases: Bases, cases: Sequence[Case], target: Path) -> None:
    save(target, judge_template(path, bases, cases))


def save(target: Path, found: Sequence[Verdict]) -> None:
    """Write verdicts to a file, all or none."""
    temporary = target.with_suffix(".part")
    temporary.write_text(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=1))
    temporary.rename(target)
