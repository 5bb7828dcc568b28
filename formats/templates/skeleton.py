"""Skeletons: what a template did to one conversation, to be done again for every other one like it without Jinja.

The template is run once with traced texts (see `traced_text`). What comes out is a `Skeleton`: the template's own words
with gaps for the texts. Any conversation with the same layout (see `layouts`), whose texts hold none of the strings
that the template looked for, is rendered by filling the gaps: the template would take the same way through its program.

It trades memory (one skeleton for each layout) for 20 to 50 times the speed of Jinja.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from types import GeneratorType, MethodType
from typing import Any, cast

import jinja2
import jinja2.runtime
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from sft_shards.formats.columnar import Layout, text_labels
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import ID_LENGTH, id_number, is_id_of_length, put_together, turns_of
from sft_shards.formats.templates.chat_template import ChatTemplate
from sft_shards.formats.templates.learning import TemplateTokens
from sft_shards.formats.templates.metered_methods import TEXT_METHODS
from sft_shards.formats.templates.rendering import Rendering, Span
from sft_shards.formats.templates.sandbox import DICT_READERS, Namespace, Sandbox, compile_template, furnish, given, run
from sft_shards.formats.templates.sentinels import GENERATION_MARKS
from sft_shards.formats.templates.traced_code import TracingCodeGenerator
from sft_shards.formats.templates.traced_filters import furnish_traced
from sft_shards.formats.templates.traced_json import TracedJson, TracedMapping, holds_traced, traced_tojson
from sft_shards.formats.templates.traced_parts import (
    TracedLength,
    TracedSlice,
    Unknown,
    UnknownText,
    item,
    length_of,
    sliced,
)
from sft_shards.formats.templates.traced_text import Change, ToPython, Trace, TracedText, Untraceable, untraced
from sft_shards.formats.templates.traced_values import SafeText, TracedList, TracedNumber, TracedView

FILTERS = {
    "trim",
    "default",
    "d",
    "list",
    "length",
    "count",
    "first",
    "last",
    "selectattr",
    "rejectattr",
    "reverse",
    "string",
    "items",
    "map",
}
"""Filters that treat a traced text through its own methods, or only look at the list it stands in."""
TESTS = {
    "string",
    "none",
    "defined",
    "undefined",
    "mapping",
    "number",
    "boolean",
    "true",
    "false",
}
"""Tests whose answer follows from a text being a text."""
OF_ANYTHING = {"default", "d", "defined", "undefined", "none"}
"""Those of both that treat any value alike."""
READERS: dict[str, Callable[[int, Trace], Any]] = {
    **dict.fromkeys(("arguments", "json", "value_object"), TracedJson.value),
    "value_list": TracedList.value,
    "value_number": TracedNumber.value,
}
"""Makes what a template is given for a text in JSON, by its label."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Skeleton:
    """A rendering with gaps for the texts of a conversation.

    A template that writes "U:" and "A:" in front of texts and a dot at the end has, for the roles (user, assistant),
    the literals ("U:", "A:", ".") and the gaps (0, 1). If the assistant's text and the dot are trained, there is one
    span, (1, 4, 2, 5): one gap and 4 bytes of literals stand before its start, two gaps and 5 bytes before its end.
    """

    literals: tuple[str, ...]
    """The template's words around the gaps: one more than there are gaps."""
    gaps: tuple[int, ...]
    """For each gap the number of its text. A text may stand in several gaps or in none."""
    spans: NDArray[np.int64]
    """int64[s, 4]: for each trained span the number of gaps before its start, the bytes of literals before its start,
    and both again for its end."""
    absent: frozenset[str]
    """Strings that no text that is filled in may hold."""
    changes: tuple[tuple[Change, ...], ...]
    """For each gap, what is done to its text, in this order."""
    notes: tuple[str, ...] = ()
    """What is counted of every conversation that is filled in, by the names of `NOTES`."""
    names: tuple[int | str, ...] = ()
    """Names of tools, each the number of its text or a constant: where one is not in the filled text, `tools_ignored`
    is counted too."""
    turns: tuple[int, ...] = ()
    """Numbers of the turns that carry loss."""
    refusal: RecordError | None = None
    """The error of every conversation with this layout; None where they are taken."""


def plain_text_skeleton(tokens: TemplateTokens) -> Skeleton:
    """Return the skeleton of every plain text: one gap (see `plain_text`)."""
    literals = tokens.around_plain_text
    spans = np.asarray([[0, 0, 1, len("".join(literals).encode())]], dtype=np.int64)
    return Skeleton(literals=literals, gaps=(0,), spans=spans, absent=frozenset(), changes=((),))


class Tracer:
    """Makes the skeletons of one template, for conversations that offer tools or for the others.

    Attributes:
        looked_into: labels of the texts in JSON that the template looked into, and of texts that it compared with each
            other, so that it could not be traced.
        sorts: whether it asked for an order of keys that is not known.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._chat_template = template
        self._template: jinja2.Template | None = None
        self.looked_into: set[str] = set()
        self.sorts = False
        with contextlib.suppress(jinja2.TemplateSyntaxError):
            self._template = compile_template(template.source, _guarded_sandbox)

    def trace(
        self,
        layout: Layout,
        texts: Sequence[str],
        rendering: Rendering,
        spans: Sequence[Span],
    ) -> Skeleton | None:
        """Return the skeleton of a layout, from one conversation with it and its rendering by Jinja.

        Args:
            layout, texts: the conversation, as `layouts.take_apart` gives it; no text has white space at its ends.
            rendering: of this conversation.
            spans: its trained spans, in characters.

        Returns:
            None where the template cannot be traced, or the skeleton does not give this rendering.
        """
        trace = Trace()
        try:
            written = self._run(layout, trace)
        except Exception:  # untraceable, beyond a bound, or whatever else a template raises: Jinja renders it then
            return None
        literals, gaps, changes = trace.split(written)
        literals = [literal.translate(GENERATION_MARKS) for literal in literals]
        fillings = [texts[gap] for gap in gaps]
        for place, own in enumerate(changes):
            for change in own:
                fillings[place] = change(fillings[place])
        filled = "".join(part for pair in zip(literals, [*fillings, ""], strict=True) for part in pair)
        if rendering.text.startswith(filled):  # the stop token of the last turn was added
            literals[-1] += rendering.text[len(filled) :]
        elif filled.startswith(rendering.text):  # what the template writes behind the last turn (a header) was cut off
            literals[-1] = literals[-1][: len(literals[-1]) - (len(filled) - len(rendering.text))]
        else:
            return None
        located = _locate(literals, fillings, spans)
        if located is None:
            return None
        return Skeleton(
            literals=tuple(literals),
            gaps=tuple(gaps),
            spans=located,
            absent=frozenset(trace.absent) | frozenset(filter(None, [self._chat_template.locator.shown.surplus])),
            changes=tuple(changes),
        )

    def looked_for_in_histories(self, layout: Layout) -> frozenset[str] | None:
        """Return the strings that the template looks for in texts when it renders what inference meets turn by turn.

        For each assistant's turn these are the messages before it, with the generation prompt, and the messages up to
        it. A template may refuse them. None where it cannot be traced.
        """
        absent: set[str] = set()
        for role, start, end in turns_of(layout):
            if role == "assistant":
                for beginning, prompt in ((layout[:start], True), (layout[:end], False)):
                    trace = Trace()
                    with contextlib.suppress(Exception):  # refused, so inference does not come here
                        try:
                            self._run(beginning, trace, prompt=prompt)
                        except Untraceable:
                            return None
                    absent |= trace.absent
        return frozenset(absent)

    def _run(self, layout: Layout, trace: Trace, *, prompt: bool = False) -> str:
        """Return what the template writes for traced texts, with gaps, in the first form of the messages that it takes.

        It raises whatever the template raises.
        """
        if self._template is None:
            raise Untraceable
        traced = [TracedText.message(number, trace) for number in range(len(text_labels(layout)))]
        trace.lengths = {
            number: ID_LENGTH for number, label in enumerate(text_labels(layout)) if is_id_of_length(label)
        }
        ids = {number: id_number(label) for number, label in enumerate(text_labels(layout))}
        trace.ids = {number: own for number, own in ids.items() if own is not None}
        numbers = {untraced(text): number for number, text in enumerate(traced)}
        turns, tools = put_together(
            layout,
            traced,
            read=lambda label, text: READERS[label](numbers[untraced(text)], trace),
            mapping=lambda order: TracedMapping.empty(trace, order),
        )
        beside = {"tools": tools or None, "documents": None, **self._chat_template.arguments}
        refused: Exception | None = None
        for messages in self._chat_template.renderer.forms(turns, traced_tojson):
            try:
                variables = self._chat_template.renderer.variables(messages, beside)
                pieces = run(self._template, {**variables, "add_generation_prompt": prompt})
            except Untraceable:
                self.looked_into |= {text_labels(layout)[number] for number in trace.looked_into}
                self.sorts |= trace.sorts
                raise
            except Exception as error:
                refused = error
            else:
                return "".join(untraced(piece) for piece in pieces)
        assert refused is not None, "there is a form"
        raise refused


def _locate(literals: Sequence[str], texts: Sequence[str], spans: Sequence[Span]) -> NDArray[np.int64] | None:
    """Return `Skeleton.spans`; None where a span starts or ends inside of a text.

    With the literals "U:", "A:", "." and the texts "x0", "x1" the rendering is "U:x0A:x1.". Its span (6, 9), "x1.",
    lies on literals that begin at 0, 4 and 8, with 0, 2 and 4 bytes of literals before them. Position 6 is 2 characters
    into the second: 1 gap and 4 bytes before it. Position 9 is one into the third: 2 gaps and 5 bytes.
    """
    begins, bytes_before, begin, length = [], [], 0, 0
    for literal, text in zip(literals, [*texts, ""], strict=True):
        begins.append(begin)
        bytes_before.append(length)
        begin += len(literal) + len(text)
        length += len(literal.encode())

    def find(position: int) -> tuple[int, int] | None:
        number = bisect_right(begins, position) - 1  # no text is empty, so no other literal can hold it
        inside = position - begins[number]
        if inside > len(literals[number]):
            return None
        return number, bytes_before[number] + len(literals[number][:inside].encode())

    out = []
    for start, end in spans:
        first, last = find(start), find(end)
        if first is None or last is None:
            return None
        out.append((*first, *last))
    return np.asarray(out, dtype=np.int64).reshape(-1, 4)


class _TracingSandbox(Sandbox):
    """The sandbox, in which nothing is done to a traced text without its own methods."""

    code_generator_class = TracingCodeGenerator

    def concat(self, pieces: Iterable[str]) -> str:
        """Join texts; the result is traced if one of them is."""
        known = list(pieces)
        traced = next((piece for piece in known if isinstance(piece, TracedText)), None)
        text = super().concat(known)
        return text if traced is None else TracedText.of(text, traced.trace)

    def weighed(self, value: Any) -> Any:
        """Return a value that will be compared or hashed; what is traced in it says itself what may be done with it."""
        return value if holds_traced(value) else super().weighed(value)

    def contains(self, container: Any, value: Any) -> bool:
        """Return `value in container`, unless a text of a message is looked up in a text that would not notice."""
        if isinstance(value, TracedText) and not isinstance(container, (list, tuple)):
            raise Untraceable
        return self.weighed(value) in self.weighed(container)

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """Return `value[start:stop:step]`."""
        if isinstance(value, SafeText):
            raise Untraceable
        if isinstance(value, TracedText):
            return sliced(value, start, stop, step)
        return self.made(value[start:stop:step])

    def held(self, value: Any) -> Any:
        """Return a number, or 0 if it is below."""
        if isinstance(value, TracedLength):
            return value.held()
        return 0 if value < 0 else value

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item or, as for other texts, an attribute; a traced object says itself what is known of it."""
        if isinstance(obj, (SafeText, TracedNumber, TracedView)):
            raise Untraceable
        if isinstance(obj, TracedJson):
            return obj[argument]
        if isinstance(obj, TracedText) and type(argument) is int:
            return item(obj, argument)
        if isinstance(obj, (TracedText, Unknown)) and type(argument) is str:
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute, but none that only traced texts have."""
        if isinstance(obj, (SafeText, TracedList, TracedNumber, TracedView)):
            raise Untraceable
        if isinstance(obj, TracedJson) and attribute not in DICT_READERS:
            raise Untraceable
        if isinstance(obj, (TracedText, TracedSlice)) and not hasattr(str, attribute):
            return self.undefined(obj="", name=attribute)
        if isinstance(obj, UnknownText) and attribute in ("strip", "lstrip", "rstrip"):
            return getattr(obj, attribute)
        if isinstance(obj, Unknown):
            raise Untraceable
        if isinstance(obj, TracedText):
            if attribute in TEXT_METHODS:
                return getattr(obj, attribute)
            if attribute not in ("format", "format_map"):
                raise Untraceable
        return super().getattr(obj, attribute)

    def text(self, value: Any) -> str:
        """Return a value as a text."""
        if isinstance(value, (TracedJson, TracedList)) and not isinstance(value, TracedMapping):
            return TracedText.of(value.trace.gap(value.number, (ToPython(),)), value.trace)
        return super().text(value)

    def add(self, total: Any, *others: Any) -> Any:
        """Return a sum; a text that is not to be escaped would escape the traced texts that it is added to."""
        if any(isinstance(one, Markup) for one in (total, *others)) and holds_traced([total, *others]):
            raise Untraceable
        return super().add(total, *others)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute, unless a traced text takes part: `'%s' % text` would give an ordinary text."""
        if isinstance(left, str) and holds_traced([left, right]):
            raise Untraceable
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call macros, and methods of traced texts; anything else only without traced texts.

        `'{}'.format(text)` would give an ordinary text, of which nothing is known any more.
        """
        own = isinstance(obj, MethodType) and isinstance(obj.__self__, (TracedText, TracedJson))
        takes_any = own or isinstance(obj, jinja2.runtime.Macro) or obj in (dict, Namespace)
        if not takes_any and holds_traced([*args, *given(kwargs).values()]):
            raise Untraceable
        return super().call(context, obj, *args, **kwargs)


def _guarded_sandbox() -> Sandbox:
    environment = furnish(_TracingSandbox)
    for functions, known in ((environment.filters, FILTERS), (environment.tests, TESTS)):
        table: dict[str, Any] = functions
        table.update({name: _guarded(name, each, known) for name, each in table.items()})
    length = environment.filters["length"]
    environment.filters["length"] = environment.filters["count"] = lambda value: (
        length_of(value) if isinstance(value, TracedText) else length(value)
    )
    environment.filters["tojson"] = traced_tojson
    safe = environment.filters["safe"]
    environment.filters["safe"] = lambda value: (
        SafeText.of(untraced(value), value.trace) if isinstance(value, TracedText) else safe(value)
    )
    furnish_traced(environment)
    dictsort = environment.filters["dictsort"]
    environment.filters["dictsort"] = lambda value, *args, **named: (
        value.by_key() if isinstance(value, TracedJson) and not (args or named) else dictsort(value, *args, **named)
    )
    form = environment.filters["format"]
    environment.filters["format"] = lambda value, *args, **named: (
        environment.text(args[0])
        if type(value) is str and value == "%s" and len(args) == 1
        else form(value, *args, **named)
    )
    for name in ("iterable", "sequence"):
        environment.tests[name] = _of_held(cast("Callable[[Any], bool]", environment.tests[name]))
    return environment


def _of_held(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a test that all texts and containers pass, whatever is in them, and traced numbers do not."""
    known = (TracedText, dict, list, tuple)
    return lambda value: isinstance(value, known) or (not isinstance(value, TracedNumber) and test(value))


def _guarded(name: str, function: Callable[..., Any], known: set[str]) -> Callable[..., Any]:
    """Return a filter or test that refuses traced texts, unless it is known to treat them right."""
    if name in OF_ANYTHING:
        return function

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if name in known:
            if any(isinstance(one, Unknown) for one in (*args, *kwargs.values())):
                raise Untraceable(name)
            return function(*args, **kwargs)
        # What another filter yields is looked at before it is handed on.
        held = [list(one) if isinstance(one, GeneratorType) else one for one in args]
        if holds_traced([*held, *kwargs.values()]):
            raise Untraceable(name)
        pairs = zip(args, held, strict=True)
        return function(*(iter(own) if isinstance(one, GeneratorType) else own for one, own in pairs), **kwargs)

    return guarded
