"""Jinja for chat templates: a tokenizer's template is somebody else's program, so it runs within bounds.

The environment is the one that `transformers` renders chat templates in (`utils/chat_template_utils.py`, 5.x):
the same block trimming, loop controls, `tojson`, `raise_exception` and `{% generation %}`. What differs, on purpose:

- `strftime_now` answers with one fixed day, and the filter `random` is not there, since a job that is repeated must
  give the same bytes.
- Compiling, rendering and tracing run within a `Budget` of work and memory, and within `SECONDS`. Filters that no bound
  is known for are not there (`metered_methods.REMOVED`).

It is done in this process, by code that counts (see `metered_code`), because a child process would cost every record a
round trip. It makes Jinja slower; text-only records, which skeletons render, pay nothing.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from types import BuiltinMethodType, MethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from sft_shards.formats.errors import RecordError
from sft_shards.formats.templates.budget import CONTAINERS, OBJECT, SCALARS, SLOT, STEP, Budget, characters
from sft_shards.formats.templates.metered_code import MeteredCodeGenerator
from sft_shards.formats.templates.metered_methods import (
    TEXT_METHODS,
    furnish_filters,
    length,
    pay_for_format,
    pay_for_method,
    refuse,
)
from sft_shards.formats.templates.sentinels import GENERATION_END, GENERATION_MARKS, GENERATION_START

DAY = date(2024, 7, 26)
"""What `strftime_now` answers with, whatever the day: the date that Llama 3.1's own template falls back to."""
SECONDS = 20.0
CHARACTERS = 64 << 20
"""Of one rendering, at most."""
LONGEST_SOURCE = 128 << 10
"""Of a template, in characters; published ones have up to about 30,000. jinja2 compiles in time and memory that grow
with the square of some of them."""
LONGEST_ERROR = 300
DICT_NAMES = frozenset(dir(dict))
DICT_READERS = frozenset({"get", "items", "keys", "values"})
"""Methods of a dict that change nothing."""
LOOP_NUMBERS = frozenset({"first", "last", "index", "index0", "revindex", "revindex0", "length"})
"""Attributes of a loop that are numbers and truth values, which jinja2's rule never keeps from a template."""
PLAIN_OWNERS = (str, dict, list, tuple)
"""Types of Python's own, of whose methods jinja2 finds nothing out: they take no context, and are not marked unsafe."""
MOST_BITS = 8192
"""Of an integer."""


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


class Namespace(jinja2.utils.Namespace):
    """jinja2's `namespace`, which does not print what it holds: it can hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


_own_attribute = object.__getattribute__


def held_by(namespace: Namespace) -> dict[str, Any]:
    """Return what a namespace holds, without jinja2's detour for each name."""
    held: dict[str, Any] = _own_attribute(namespace, "_Namespace__attrs")
    return held


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's sandbox, which keeps templates from Python's internals; this one also pays for all that they do.

    Attributes:
        budget: what is left to the template that runs.
    """

    code_generator_class = MeteredCodeGenerator
    intercepted_binops = frozenset(["-", "*", "/", "//", "**", "%"])

    def __init__(self, **options: Any) -> None:
        self.budget = Budget()
        super().__init__(**options)

    # What compiled templates call (see `metered_code`)

    def tick(self) -> None:
        """Pay for an iteration of a loop or a call of a macro."""
        budget = self.budget
        budget.left -= STEP
        if budget.left < 0:
            budget.refill()

    def add(self, total: Any, *others: Any) -> Any:
        """Return `total + other + …`."""
        budget = self.budget
        for other in others:
            total = total + other
            if type(total) is str:
                budget.left -= len(total)
            else:
                self.made(total)
        if budget.left < 0:
            budget.refill()
        return total

    def tilde(self, *values: Any) -> str:
        """Return `value ~ value ~ …`."""
        return self.concat([self.text(value) for value in values])

    def text(self, value: Any) -> str:
        """Return a value as a text."""
        if type(value) is str:
            return value
        if isinstance(value, CONTAINERS):
            self.budget.weigh(value)
        text = str(value)
        self.budget.spend(length(text))
        return text

    def made(self, value: Any) -> Any:
        """Return a value that was just made, and pay for the room that it takes."""
        if isinstance(value, (list, tuple, dict, bytes)):
            self.budget.spend(OBJECT + SLOT * len(value))
        elif isinstance(value, int):
            if value.bit_length() > MOST_BITS:
                raise refuse(f"makes a number of more than {MOST_BITS} bits")
        else:
            self.budget.spend(length(value))
        return value

    def weighed(self, value: Any) -> Any:
        """Return a value that will be compared or hashed."""
        if type(value) not in SCALARS and isinstance(value, CONTAINERS):
            self.budget.weigh(value)
        return value

    def concat(self, pieces: Iterable[str]) -> str:
        """Join the texts that a macro or block wrote."""
        known = list(pieces)
        self.budget.spend(sum(map(length, known)))
        return "".join(known)

    # What jinja2's sandbox asks

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Apply jinja2's rule; what templates ask for most often is found without its many questions."""
        kind = type(obj)
        if kind is dict:
            if attribute not in DICT_NAMES:
                return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
            if attribute in DICT_READERS:
                return getattr(obj, attribute)
        elif kind is Namespace:
            held = held_by(obj)
            if attribute in held and attribute[:1] != "_":
                return held[attribute]
        elif (kind is jinja2.runtime.LoopContext and attribute in LOOP_NUMBERS) or (
            kind is str and attribute in TEXT_METHODS
        ):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute what can make a huge value out of two small ones, if it does not."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple, bytes)) and isinstance(other, int):
                    unit = 1 if isinstance(one, (str, bytes)) else SLOT
                    self.budget.spend(unit * max(0, (length(one) or len(one)) * other))
        if operator == "**" and not (isinstance(right, (int, float)) and abs(right) <= 64):
            raise refuse("raises to a power above 64")
        if operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else right.values() if isinstance(right, dict) else (right,)
            pay_for_format(self.budget, left, values)
        elif operator == "%" and isinstance(left, bytes):
            raise refuse("formats bytes")
        return self.made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return jinja2's sandboxed `str.format`, which pays."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        form = value.__self__

        def format_(*args: Any, **kwargs: Any) -> str:
            values = [*args, *given(kwargs).values()]
            pay_for_format(self.budget, form, values[0].values() if _is_map(value, values) else values)
            return wrapped(*args, **kwargs)

        return format_

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call something, and pay for it; what templates call most often without jinja2's questions about it."""
        self.budget.spend(STEP + SLOT * len(args))
        kind = type(obj)
        if kind is BuiltinMethodType or (kind is MethodType and isinstance(obj.__self__, str)):
            named = given(kwargs)
            args = pay_for_method(self.budget, obj.__self__, obj.__name__, args, named)
            if type(obj.__self__) in PLAIN_OWNERS:
                return obj(*args, **named)
        elif kind is jinja2.runtime.Macro:
            return obj(context.eval_ctx, *args, **given(kwargs))
        elif kind is MethodType or kind is type:
            for value in (*args, *given(kwargs).values()):
                self.weighed(value)
        return super().call(context, obj, *args, **kwargs)


def given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a call that the template wrote, without those that jinja2 adds."""
    return {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}


def _is_map(method: Any, values: list[Any]) -> bool:
    return method.__name__ == "format_map" and len(values) == 1 and isinstance(values[0], dict)


def compile_template(source: str, environment: Callable[[], Sandbox] | None = None) -> jinja2.Template:
    """Compile a chat template.

    Args:
        environment: makes the environment to compile it in (default: `furnish(Sandbox)`).

    Raises:
        jinja2.TemplateSyntaxError: it is no Jinja, or too much of it.
    """
    if len(source) > LONGEST_SOURCE:
        message = f"a template of {len(source):,} characters; at most {LONGEST_SOURCE:,} are taken"
        raise jinja2.TemplateSyntaxError(message, 1)
    try:
        with time_limit(SECONDS):
            return (environment or _ordinary)().from_string(source)
    except jinja2.TemplateSyntaxError:
        raise
    except TimeoutError:
        raise jinja2.TemplateSyntaxError(f"takes more than {SECONDS:g} seconds to compile", 1) from None
    except Exception as error:  # a RecursionError of jinja2, a SyntaxError or MemoryError of Python's compiler
        raise jinja2.TemplateSyntaxError(f"cannot be compiled ({type(error).__name__}: {error})", 1) from None


def variables_of(source: str) -> frozenset[str]:
    """Return the names of the variables that a chat template takes: those it looks up and does not set itself.

    Raises:
        jinja2.TemplateSyntaxError: it is no Jinja.
    """
    return frozenset(jinja2.meta.find_undeclared_variables(_ordinary().parse(source)))


def _ordinary() -> Sandbox:
    return furnish(Sandbox)


def furnish(kind: type[Sandbox]) -> Sandbox:
    """Return an environment of a kind with the filters and functions that chat templates know."""

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(environment.text(message))

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        environment.budget.spend(256 * length(form))
        return datetime(DAY.year, DAY.month, DAY.day).strftime(form)

    environment = kind(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # nothing is computed at compile time
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = tojson
    furnish_filters(environment.filters, environment.tests, environment.budget)
    environment.filters["string"] = lambda value: value if isinstance(value, str) else environment.text(value)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals["namespace"] = Namespace
    del environment.globals["lipsum"]  # random words
    return environment


def run(template: jinja2.Template, variables: dict[str, Any]) -> list[str]:
    """Run a compiled template within the bounds, and return the pieces that it writes.

    Raises:
        TimeoutError: it ran for more than `SECONDS`.
        Exception: whatever else the template does; `budget.Exhausted` for its bounds.
    """
    pieces, size = [], 0
    environment = template.environment
    assert isinstance(environment, Sandbox)
    with time_limit(SECONDS):
        environment.budget.start(SECONDS, lambda: characters(list(variables.values())))
        for piece in template.generate(**variables):
            size += length(piece)
            if size > CHARACTERS:
                raise refuse(f"writes more than {CHARACTERS:,} characters")
            pieces.append(piece)
    return pieces


def render(template: jinja2.Template, **variables: Any) -> str:
    """Return what a template writes.

    Raises:
        RecordError: `template_error` with what the template said (`raise_exception`, an undefined value, a bound).
    """
    try:
        return "".join(run(template, variables))
    except TimeoutError:
        said = f"the template ran for more than {SECONDS:g} seconds"
    except jinja2.exceptions.TemplateError as error:
        said = error.message or type(error).__name__
    except Exception as error:  # a template can raise whatever Python can
        said = f"{type(error).__name__}: {error}"
    raise RecordError("template_error", said if len(said) <= LONGEST_ERROR else f"{said[:LONGEST_ERROR]}…")


def render_prompt(source: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, object]) -> str:
    """Return what a chat template writes for messages that the assistant is to answer.

    Args:
        source: the template's text.
        messages: with `role` and `content`.
        variables: `bos_token` and so on, and the template's arguments.

    Raises:
        RecordError: `template_error`, it is no template, refuses the messages, or exceeds a bound.
    """
    try:
        template = compile_template(source)
    except jinja2.TemplateSyntaxError as error:
        raise RecordError("template_error", f"line {error.lineno}: {error.message}") from None
    given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    return render(template, **{**variables, **given}).translate(GENERATION_MARKS)


def variables_taken(source: str) -> frozenset[str]:
    """Return `variables_of` a template that may be none.

    Raises:
        RecordError: `template_error`, it is no template.
    """
    try:
        compile_template(source)
        return variables_of(source)
    except jinja2.TemplateSyntaxError as error:
        raise RecordError("template_error", f"line {error.lineno}: {error.message}") from None


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
