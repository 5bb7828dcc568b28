"""Jinja for chat templates: a tokenizer's template is somebody else's program, so it runs with bounds on time and size.

The environment is the one that `transformers` renders chat templates in (`utils/chat_template_utils.py`, 5.x):
the same block trimming, loop controls, `tojson`, `raise_exception` and `{% generation %}`. Two things differ on
purpose. `strftime_now` answers with one fixed day, since a job that is repeated must give the same bytes. And a
template that runs for longer than `SECONDS` or writes more than `CHARACTERS` is stopped.
"""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from functools import wraps
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.sentinels import GENERATION_END, GENERATION_START

DAY = date(2024, 7, 26)
"""What `strftime_now` answers with, whatever the day: the date that Llama 3.1's own template falls back to."""
SECONDS = 20.0
CHARACTERS = 64 << 20
DICT_NAMES = frozenset(dir(dict))
PADDING_METHODS = ("center", "ljust", "rjust", "zfill", "expandtabs")
UNBOUNDED = re.compile(r"\d{5,}|\*|:[^}]*\{")
"""Widths of five digits and more, and widths that come from an argument, in either kind of format text."""


class Generation(jinja2.ext.Extension):
    """The tags `{% generation %} … {% endgeneration %}`: what stands inside is what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Parse one block into a call that puts the two marks around its text."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{GENERATION_START}{caller()}{GENERATION_END}"


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's sandbox, which keeps templates from Python's internals; this one also keeps them from great sizes."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Apply jinja2's rule; items of an ordinary dict are found without its detour over an exception."""
        if type(obj) is dict and attribute in obj and attribute not in DICT_NAMES:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse the operators that make a huge value out of two small ones."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple, bytes)) and isinstance(other, int) and len(one) * other > 1 << 20:
                    raise jinja2.exceptions.SecurityError("the template repeats a value beyond a million items")
        if operator == "**" and not (isinstance(right, (int, float)) and abs(right) <= 64):
            raise jinja2.exceptions.SecurityError("the template raises to a power above 64")
        if operator == "%" and isinstance(left, str) and UNBOUNDED.search(left):
            raise jinja2.exceptions.SecurityError("the template formats to a width that is not bounded")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Apply jinja2's rule, and refuse the text methods that pad to any width."""
        if isinstance(obj, str) and attr in PADDING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return jinja2's sandboxed `str.format`, and refuse a width that is not bounded."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and UNBOUNDED.search(value.__self__):
            raise jinja2.exceptions.SecurityError("the template formats to a width that is not bounded")
        return wrapped


def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that refuses large numbers and unbounded format texts among its arguments."""

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and abs(value) > 9999:
                raise jinja2.exceptions.SecurityError(f"the template pads to {value} characters")
        if function.__name__ == "do_format" and UNBOUNDED.search(str(args[0])):
            raise jinja2.exceptions.SecurityError("the template formats to a width that is not bounded")
        return function(*args, **kwargs)

    return checked


def compile_template(source: str) -> jinja2.Template:
    """Compile a chat template.

    Raises:
        jinja2.TemplateSyntaxError: it is no Jinja.
    """
    return furnish(Sandbox).from_string(source)


def furnish(kind: type[Sandbox]) -> Sandbox:
    """Return an environment of a kind with the filters and functions that chat templates know."""

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime(DAY.year, DAY.month, DAY.day).strftime(form)

    environment = kind(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # constants would be computed when compiled, which nothing bounds
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    for name in ("center", "format", "indent"):
        environment.filters[name] = bounded(environment.filters[name])
    return environment


def render(template: jinja2.Template, **variables: Any) -> str:
    """Return what a template writes, within the bounds.

    Raises:
        RecordError: `template_error` with what the template said (`raise_exception`, an undefined value, a bound).
    """
    pieces, size = [], 0
    try:
        with time_limit(SECONDS):
            for piece in template.generate(**variables):
                size += len(piece)
                if size > CHARACTERS:
                    raise jinja2.exceptions.SecurityError(f"the template writes more than {CHARACTERS:,} characters")
                pieces.append(piece)
    except jinja2.exceptions.TemplateError as error:
        raise RecordError("template_error", f"{error.message or type(error).__name__}") from None
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise RecordError("template_error", f"{type(error).__name__}: {error}") from None
    except TimeoutError:
        raise RecordError("template_error", f"the template ran for more than {SECONDS:g} seconds") from None
    return "".join(pieces)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds.

    In a thread other than the main one it does nothing: signals reach only that one, in which the job's workers render.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
