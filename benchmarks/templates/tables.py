"""Tables of verdicts: acceptance by family, counts by reason, examples of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

from benchmarks.templates.runner import Verdict


def acceptance(found: Sequence[Verdict], with_calls: Set[str]) -> str:
    """Return a table with a line for each family.

    Args:
        with_calls: names of the templates that read tool calls; only these can accept conversations with tools.
    """
    head = ["family", "templates", "exact", "refused", "wrong", "read calls", "with tools", "of what they can say"]
    lines = ["| " + " | ".join([*head, "why not"]) + " |", "|---" * (len(head) + 1) + "|"]
    for family in sorted({one.family for one in found}, key=str.lower):
        own = [one for one in found if one.family == family]
        counts = Counter(one.verdict for one in own)
        agentic = [one for one in own if one.agentic and one.template in with_calls]
        why = Counter(one.reason for one in agentic if one.verdict != "exact" and not one.obstacle)
        cells = [
            family,
            len({one.template for one in own}),
            *(counts[kind] for kind in ("exact", "refused", "wrong")),
            len({one.template for one in agentic}),
            _share(agentic),
            _share([one for one in agentic if not one.obstacle]),
            ", ".join(f"`{reason}` {count}" for reason, count in why.most_common(3)),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def by_obstacle(found: Sequence[Verdict]) -> str:
    """Return how often templates could not express a conversation, and why not."""
    counts = Counter(one.obstacle for one in found if one.obstacle)
    return "\n".join(f"{count:6} cannot be said: {obstacle}" for obstacle, count in counts.most_common())


def _share(found: Sequence[Verdict]) -> str:
    return f"{sum(one.verdict == 'exact' for one in found) / len(found):.1%}" if found else "–"


def by_reason(found: Sequence[Verdict]) -> str:
    """Return how often each verdict was given, and for which reasons."""
    counts = Counter(one.verdict for one in found)
    lines = [f"\n{len({one.template for one in found})} templates, {len(found)} verdicts: {dict(counts)}"]
    reasons = Counter((one.verdict, one.reason) for one in found if one.verdict != "exact")
    lines += [f"{count:6} {verdict}: {reason}" for (verdict, reason), count in reasons.most_common()]
    return "\n".join(lines)


def examples(found: Sequence[Verdict], count: int) -> str:
    """Return examples of what is not exact: so many for each verdict and reason of a family."""
    seen: Counter[tuple[str, str, str]] = Counter()
    lines = []
    for one in found:
        kind = (one.family, one.verdict, one.reason)
        seen[kind] += one.verdict != "exact"
        if one.verdict != "exact" and seen[kind] <= count:
            lines.append(f"\n## {one.verdict}: {one.reason} — {one.template}, {one.case}\n{one.detail}")
    return "\n".join(lines)
