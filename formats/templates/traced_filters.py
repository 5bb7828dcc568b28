"""Filters that make texts of traced texts, as jinja2's own make them of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from sft_shards.formats.templates.sandbox import Sandbox
from sft_shards.formats.templates.traced_code import PASSED_OVER
from sft_shards.formats.templates.traced_json import holds_traced
from sft_shards.formats.templates.traced_text import TracedText


def furnish_traced(environment: Sandbox) -> None:
    """Replace the filters of an environment that traced texts have an answer for."""
    for name, traced in (("join", _join), ("replace", _replace)):
        environment.filters[name] = traced(environment, environment.filters[name])
    environment.filters[PASSED_OVER] = lambda value: () if isinstance(value, TracedText) else value


def _join(environment: Sandbox, join: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(join)
    def joined(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        if type(value) is str or attribute is not None:
            return join(context, value, d, attribute)
        pieces = list(value)
        if not holds_traced([d, *pieces]):
            return join(context, pieces, d)
        separator = environment.text(d)
        return environment.concat([part for piece in pieces for part in (separator, environment.text(piece))][1:])

    return joined


def _replace(environment: Sandbox, replace: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(replace)
    def replaced(context: Any, s: Any, old: Any, new: Any, count: Any = None) -> Any:
        if not isinstance(s, TracedText):
            return replace(context, s, old, new, count)
        return environment.text(s).replace(environment.text(old), environment.text(new), -1 if count is None else count)

    return replaced
