"""Histograms as pages draw them: the places of bars and the words on the axis, in units of an SVG view box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 200
"""Of the view box, without what is written below and above."""
GAP = 4
"""Between two bars."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar."""

    x: float
    y: float
    width: float
    height: float
    count: int
    words: str
    """The range that it stands for, and its count."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A histogram."""

    title: str
    unit: str
    """What is counted along the axis."""
    bars: tuple[Bar, ...]
    marks: tuple[tuple[float, str], ...]
    """Place and text of what is written below the axis."""
    summary: str
    """What the picture shows, in words."""

    @classmethod
    def of(cls, counts: Sequence[int], bounds: Sequence[str], *, title: str, unit: str, summary: str = "") -> Chart:
        """Lay out a histogram.

        Args:
            counts: of each bin.
            bounds: one more, in words: bin i lies between bounds i and i + 1.

        >>> chart = Chart.of((2, 4), ("0", "10", "20"), title="t", unit="tokens")
        >>> [(bar.height, bar.words) for bar in chart.bars]
        [(100.0, '0–10 tokens: 2'), (200.0, '10–20 tokens: 4')]
        """
        assert len(bounds) == len(counts) + 1
        step = WIDTH / max(1, len(counts))
        most = max(counts, default=0) or 1
        bars = tuple(
            Bar(
                x=round(number * step + GAP / 2, 2),
                y=round(HEIGHT - _height(count, most), 2),
                width=round(step - GAP, 2),
                height=round(_height(count, most), 2),
                count=count,
                words=f"{bounds[number]}–{bounds[number + 1]} {unit}: {count:,}",
            )
            for number, count in enumerate(counts)
        )
        every = -(-len(bounds) // 11)
        marks = tuple((round(number * step, 2), bounds[number]) for number in range(0, len(bounds), every))
        return cls(title=title, unit=unit, bars=bars, marks=marks, summary=summary)


def _height(count: int, most: int) -> float:
    """Height of a bar; one that stands for anything at all can be seen."""
    return max(HEIGHT * count / most, 2.0) if count else 0.0
