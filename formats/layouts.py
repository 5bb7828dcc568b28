"""Layouts: a conversation of any kind as a list of labels and a list of texts.

Thousands of conversations have the same layout and differ in their texts alone, so that what is found out about one of
them holds for all. A role sequence is the layout of a text-only conversation; a call with its answer has the layout

    labels   user   assistant=null   call            arguments               tool     assistant
    texts    "Hi"                    "get_weather"   '{"city": "Basel"}'     "sunny"  "It is clear"

| label | its text |
|---|---|
| `user`, `assistant`, … | the content of a new turn |
| `ROLE=JSON` | none: a new turn whose content is this constant (null, or white space) |
| `ROLE+WORDS` | the content of a new turn, which begins with these words (a think tag and white space) |
| `+WORDS` | how the content goes on behind the text before and these words |
| `input`, `reasoning`, `name`, `tool_call_id` | a field of the turn |
| `reasoning=JSON`, `reasoning_alias=true`, `weight=0` | none: a field with this constant |
| `call`, `call_id`, `arguments` | the name of a call, its id, and its arguments as JSON |
| `call_id9`, `tool_call_id9` | an id of nine characters, as Mistral's templates want it (see `call_ids`) |
| `call_id:N`, `tool_call_id:N`, `call_id9:N`, … | the `N`th of the ids of the conversation that differ, from 0 |
| `arguments=JSON`, `arguments_text` | arguments that are a constant; arguments that are a text |
| `key` | of a member of the arguments, where these are taken apart instead; its value has the next label |
| `order=JSON` | none: in front of several members, their positions in the order of their keys as `dictsort` has them |
| `value`, `value_number` | a value that is a text, or a number |
| `value_object`, `value_list` | a value that is an object, or a list, as JSON; none is empty |
| `value=JSON` | none: a value with this constant (true, false, null, a blank text, `{}`, `[]`) |
| `offer=JSON` | none: a tool on offer. `LEAF_TEXT` and `LEAF_JSON` in it, if any, stand for the next labels' texts |
| `text`, `json` | a text, and a value as JSON |

What is in no label, or would make too many different ones, has no layout, and is rendered one by one.
"""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Any

from sft_shards.formats.columnar import INPUT, Layout, has_text
from sft_shards.formats.conversation import PLAIN_TEXT, ROLES, Conversation, Turn

OFFER = "offer="
ORDER = "order="
LEAF_TEXT, LEAF_JSON = "\0text", "\0json"
ALIAS = "reasoning_alias=true"
LONGEST_CONSTANT = 64
"""Characters of a constant or of think tags with white space in a label."""
NAME = re.compile(r"[A-Za-z0-9_.:/-]+(?: [A-Za-z0-9_.:/-]+)*")
"""Names of tools and calls: what JSON writes as it is, and no template strips."""
CALL_KEYS = {"type", "function", "id"}
FUNCTION_KEYS = {"name", "arguments"}
ID_LENGTH = 9
IDS_OF_LENGTH = {label: f"{label}{ID_LENGTH}" for label in ("call_id", "tool_call_id")}
"""For the label of an id that of one with so many characters, all of them ASCII."""
ID_LABELS = frozenset({*IDS_OF_LENGTH, *IDS_OF_LENGTH.values()})
STARTS = (*ROLES, PLAIN_TEXT)
"""Labels that begin a turn."""
MOST_LABELS = 400
LONGEST_OFFER = 1000
"""Characters of a tool on offer in a label, without its texts."""

Parts = tuple[Layout, list[str]]
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_make = getattr(json.encoder, "c_make_encoder", None)  # CPython's: made once, it takes a third of the time of `encode`
_pieces = _make and _make(None, _ENCODER.default, json.encoder.encode_basestring, None, ": ", ", ", False, False, True)


def json_text(value: Any) -> str:
    """Return a value, which does not hold itself, as JSON, as templates' `tojson` writes it."""
    return "".join(_pieces(value, 0)) if _pieces else _ENCODER.encode(value)


def take_apart(conversation: Conversation) -> Parts | None:
    """Return the layout and the texts of a conversation, or None where it has no layout. No text is blank."""
    try:
        return _take_apart(conversation)
    except (TypeError, ValueError, AttributeError, KeyError):  # holds a value that JSON has no type for, say
        return None


def _take_apart(conversation: Conversation) -> Parts | None:
    labels: list[str] = []
    texts: list[str] = []
    if conversation.documents or conversation.template_arguments:
        return None
    if conversation.tools:
        offers = _marshalled_offers(marshal.dumps(list(conversation.tools), 2))  # in a fifth of the time of JSON
        if offers is None:
            return None
        labels += offers[0]
        texts += offers[1]
    for turn in conversation.turns:
        if not _add_content(turn.role, turn.content, labels, texts):
            return None
        if turn.context is not None and not _add_text(INPUT, turn.context, labels, texts):
            return None
        if turn.reasoning is not None and not _add_text("reasoning", turn.reasoning, labels, texts):
            return None
        if turn.reasoning_alias:
            labels.append(ALIAS)
        if turn.name is not None and not _add_text("name", turn.name, labels, texts):
            return None
        if turn.tool_call_id is not None and not _add_text("tool_call_id", turn.tool_call_id, labels, texts):
            return None
        if not turn.weight:
            labels.append("weight=0")
        for call in turn.tool_calls:
            if not _add_call(call, labels, texts):
                return None
    return (tuple(labels), texts) if len(labels) <= MOST_LABELS else None


def take_thoughts_apart(layout: Layout, texts: Sequence[str]) -> Parts | None:
    """Return a layout and texts with the think blocks that contents begin with taken apart, as `take_apart` does.

    Args:
        layout, texts: as `take_apart` gives them, but for the think blocks.
    """
    labels: list[str] = []
    taken: list[str] = []
    rest = iter(texts)
    for label in layout:
        if label in ROLES:
            if not _add_content(label, next(rest), labels, taken):
                return None
        else:
            labels.append(label)
            if has_text(label):
                taken.append(next(rest))
    return (tuple(labels), taken) if len(labels) <= MOST_LABELS else None


def _add_content(role: str, content: str | None, labels: list[str], texts: list[str]) -> bool:
    if content is None or not content.strip():
        labels.append(f"{role}={json_text(content)}")
        return len(labels[-1]) <= LONGEST_CONSTANT
    if "think>" not in content:
        labels.append(role)
        texts.append(content)
        return True
    return role == "assistant" and _add_thought(content, labels, texts)


def _add_thought(content: str, labels: list[str], texts: list[str]) -> bool:
    """Add an assistant's content that begins with one think block; of any other, nothing is known."""
    before, closing, behind = content.partition("</think>")
    opening, thought = _head(before)
    core = thought.rstrip()
    answer = behind.lstrip()
    middle = thought[len(core) :] + closing + behind[: len(behind) - len(answer)]
    if not closing or not answer or "think>" in core or "think>" in answer or len(opening + middle) > LONGEST_CONSTANT:
        return False
    if not core:
        labels.append(f"assistant+{opening}{middle}")
        texts.append(answer)
        return True
    labels += (f"assistant+{opening}" if opening else "assistant", f"+{middle}")
    texts += (core, answer)
    return True


def _head(text: str) -> tuple[str, str]:
    """Return the think tag that a text begins with, with the white space around it, and the rest of the text."""
    rest = text.lstrip()
    rest = rest.removeprefix("<think>").lstrip()
    return text[: len(text) - len(rest)], rest


def _add_text(label: str, text: str, labels: list[str], texts: list[str]) -> bool:
    if text.strip():
        labels.append(label)
        texts.append(text)
        return True
    labels.append(f"{label}={json_text(text)}")
    return label == "reasoning" and len(text) <= LONGEST_CONSTANT


def _add_call(call: Mapping[str, Any], labels: list[str], texts: list[str]) -> bool:
    function = call["function"]
    name, arguments = function["name"], function["arguments"]
    plain = call.keys() <= CALL_KEYS and function.keys() == FUNCTION_KEYS and call["type"] == "function"
    if not plain or not NAME.fullmatch(name):
        return False
    labels.append("call")
    texts.append(name)
    if "id" in call:
        if not call["id"].strip():
            return False
        labels.append("call_id")
        texts.append(call["id"])
    label, text = take_arguments_apart(arguments)
    labels.append(label)
    if text:
        texts.append(text)
    return bool(label)


def take_arguments_apart(arguments: Any) -> tuple[str, str]:
    """Return the label of a call's arguments and their text, "" where the label has none; no label where none fits."""
    if isinstance(arguments, str):
        return ("arguments_text", arguments) if arguments.strip() else ("", "")
    if arguments == {}:
        return "arguments={}", ""
    return ("arguments", json_text(arguments)) if isinstance(arguments, dict) else ("", "")


@lru_cache(maxsize=4096)
def _marshalled_offers(tools: bytes) -> Parts | None:
    """Return labels and texts of tools on offer; the same tools stand in many records, so they are kept."""
    return take_tools_apart(marshal.loads(tools))  # noqa: S302 - written by this process


def take_tools_apart(tools: Sequence[Mapping[str, Any]]) -> Parts | None:
    """Return labels and texts of tools on offer, or None where they have none."""
    labels: list[str] = []
    texts: list[str] = []
    for tool in tools:
        own_labels: list[str] = []
        shape = _shape(tool, own_labels, texts, nested="function")
        named = tool.get("function", tool).get("name")
        if named is not None and (not isinstance(named, str) or not NAME.fullmatch(named)):
            return None
        offer = _offer(marshal.dumps(shape, 2))
        if len(offer) > LONGEST_OFFER or offer.count("\\u0000") > len(own_labels):
            return None
        labels += [offer, *own_labels]
    return tuple(labels), texts


@lru_cache(maxsize=4096)
def _offer(shape: bytes) -> str:
    return OFFER + json_text(marshal.loads(shape))  # noqa: S302 - written by this process


def _shape(values: Mapping[str, Any], labels: list[str], texts: list[str], nested: str = "") -> dict[str, Any]:
    """Return what stands in an offer for some values: a leaf, or the value itself where it is small.

    Args:
        nested: the key of which the value is an object of such values.
    """
    shape: dict[str, Any] = {}
    for key, value in values.items():
        if nested and key == nested:
            shape[key] = _shape(value, labels, texts)
        elif type(value) is str and key != "type" and value.strip():
            labels.append("text")
            texts.append(value)
            shape[key] = LEAF_TEXT
        elif type(value) is dict and value:
            labels.append("json")
            texts.append(json_text(value))
            shape[key] = LEAF_JSON
        else:
            shape[key] = value
    return shape


def read_json(_label: str, text: Any) -> Any:
    """Return the value of a text that is JSON."""
    return json.loads(text)


def put_together(
    layout: Layout,
    texts: Sequence[Any],
    read: Callable[[str, Any], Any] = read_json,
    mapping: Callable[[list[int]], Any] = lambda _order: {},
) -> tuple[list[Turn], list[dict[str, Any]]]:
    """Return the turns and tools that `take_apart` took apart.

    Args:
        texts: of any type that can be added to a `str` (see `templates.traced_text`).
        read: gives the value of a text that is JSON, by its label.
        mapping: makes an object of arguments, to which members are added, by their order; [] where it is not known.
    """
    turns: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    order: list[int] = []
    rest = iter(texts)
    labels = iter(layout)
    for label in labels:
        if label.startswith("+"):
            turns[-1]["content"] = turns[-1]["content"] + label[1:] + next(rest)
            continue
        if label.startswith(OFFER):  # which may be long, so that no cache keeps it
            tools.append(_filled(json.loads(label[len(OFFER) :]), labels, rest, read))
            continue
        name, sign, words = _split(label)
        value: Any = json.loads(words) if sign == "=" else next(rest)
        if name in STARTS:
            turns.append({"role": name, "content": words + value if sign == "+" else value, "tool_calls": []})
        elif name == "call":
            function = {"name": value, "arguments": None}
            turns[-1]["tool_calls"].append({"type": "function", "function": function})
        elif name == "call_id":
            turns[-1]["tool_calls"][-1] = {"id": value, **turns[-1]["tool_calls"][-1]}
        elif name == "order":
            order = value
        elif name == "key":
            function = turns[-1]["tool_calls"][-1]["function"]
            if function["arguments"] is None:
                function["arguments"], order = mapping(order), []
            function["arguments"][value] = _member(next(labels), rest, read)
        elif name.startswith("arguments"):
            is_json = name == "arguments" and sign == ""
            turns[-1]["tool_calls"][-1]["function"]["arguments"] = read(name, value) if is_json else value
        else:
            turns[-1]["context" if name == INPUT else name] = value
    return [Turn(**{**turn, "tool_calls": tuple(turn["tool_calls"])}) for turn in turns], tools


def _member(label: str, texts: Iterator[Any], read: Callable[[str, Any], Any]) -> Any:
    """Return the value of a member of arguments."""
    name, sign, words = _split(label)
    if sign:
        return json.loads(words)
    return next(texts) if name == "value" else read(name, next(texts))


@lru_cache(maxsize=1 << 14)
def _split(label: str) -> tuple[str, str, str]:
    """Return a label's name, the sign behind it and the words behind that: ("user", "=", "null")."""
    found = re.match(r"([a-z_]+)([=+]?)", label)
    assert found is not None, "every label has a name"
    return found[1], found[2], label[found.end() :]


def _filled(shape: Any, labels: Iterator[str], texts: Iterator[Any], read: Callable[[str, Any], Any]) -> Any:
    """Return a tool on offer with the texts of its leaves, which have the next labels."""
    if isinstance(shape, dict):
        return {key: _filled(value, labels, texts, read) for key, value in shape.items()}
    if shape in (LEAF_TEXT, LEAF_JSON):
        next(labels)
        return next(texts) if shape == LEAF_TEXT else read("json", next(texts))
    return shape


def offers_of(layout: Layout) -> Layout:
    """Return the labels of the tools on offer, which come first."""
    return tuple(takewhile(lambda label: label.startswith(OFFER) or label in ("text", "json"), layout))


def turns_of(layout: Layout) -> list[tuple[str, int, int]]:
    """Return the role of each turn, and which labels, [start, end), are its own."""
    names = ["" if label.startswith(("+", OFFER)) else _split(label)[0] for label in layout]
    starts = [place for place, name in enumerate(names) if name in STARTS]
    return [(names[start], start, end) for start, end in pairwise([*starts, len(layout)])]


def is_assistants(label: str) -> bool:
    """Return whether a text is the words of an assistant, its reasoning included."""
    return label in ("assistant", "reasoning") or label.startswith(("assistant+", "+"))


def is_id_of_length(label: str) -> bool:
    """Return whether a text is an id of `ID_LENGTH` characters."""
    return label.partition(":")[0] in IDS_OF_LENGTH.values()


def id_number(label: str) -> int | None:
    """Return which of the ids that differ a text is, where the label says it."""
    name, _, number = label.partition(":")
    return int(number) if number and name in ID_LABELS else None


def example_texts(layout: Layout) -> list[str]:
    """Return texts that a conversation of this layout can have, no two alike but ids that its labels call the same."""
    forms = {"key": "x{1:03}-{0}", "value_list": '["x{0}"]', "value_number": "1{0:03}"}
    forms |= dict.fromkeys(IDS_OF_LENGTH.values(), f"x{{0:0{ID_LENGTH - 1}}}")
    forms |= dict.fromkeys(("arguments", "json", "value_object"), '{{"x{0}": "y{0}"}}')
    forms |= {f"{label}:": form.replace("x", "i") for label in ID_LABELS for form in (forms.get(label, "x{0}"),)}
    texts: list[str] = []
    ranks: Iterator[int] = iter(())
    for label in layout:
        if label.startswith(ORDER):
            order = json.loads(label.removeprefix(ORDER))
            ranks = iter(sorted(range(len(order)), key=order.__getitem__))
        elif has_text(label):
            own = id_number(label)
            form = forms.get(label if own is None else label[: label.index(":") + 1], "x{0}")
            texts.append(form.format(len(texts) if own is None else own, next(ranks, 0) if label == "key" else 0))
    return texts
