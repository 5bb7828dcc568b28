"""The one form that what every peer made is brought into: ids, each with whether it carries loss as a target."""

from __future__ import annotations

from typing import Any

Pairs = list[tuple[int, bool]]


def masked(ids: Any, mask: Any) -> Pairs:
    """Pairs from ids and an unshifted mask."""
    return [(int(one), bool(other)) for one, other in zip(ids, mask, strict=True)]


def labelled(ids: Any, labels: Any, ignore: int = -100) -> Pairs:
    """Pairs from ids and labels that the model shifts; what stands first is never a target."""
    pairs = [(int(one), int(label) != ignore) for one, label in zip(ids, labels, strict=True)]
    return [(pairs[0][0], False), *pairs[1:]]


def shifted(ids: Any, labels: Any, mask: Any, length: int) -> Pairs:
    """Pairs from ids, labels that are shifted already, and the mask that is multiplied with their losses."""
    pairs = [(int(ids[0]), False)]
    pairs += [(int(label), bool(weight)) for label, weight in zip(labels, mask, strict=True)]
    return pairs[:length]
