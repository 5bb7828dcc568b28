"""Skeletons of layouts, made when a layout is first seen, and what no text that is filled into one may hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from itertools import accumulate, chain, pairwise

import numpy as np
from numpy.typing import NDArray

from sft_shards.formats.columnar import ConversationColumns, Layout, text_labels
from sft_shards.formats.conversation import PLAIN_TEXT, ROLES, Conversation
from sft_shards.formats.errors import RecordError
from sft_shards.formats.layouts import ID_LABELS, ORDER, example_texts, json_text, put_together, turns_of
from sft_shards.formats.templates import ChatTemplate, Skeleton, Tracer, TrainedConversation, TrainOn, train
from sft_shards.formats.templates.rendering import CALL, CALL_END
from sft_shards.formats.templates.sentinels import all_texts
from sft_shards.formats.templates.skeleton import plain_text_skeleton
from sft_shards.preprocess.pipeline.argument_members import ARGUMENTS, with_members
from sft_shards.preprocess.pipeline.ignored_tools import TOOLS_IGNORED, unwritten_names
from sft_shards.preprocess.pipeline.skeleton_table import SkeletonTable
from sft_shards.preprocess.pipeline.string_search import StringSearch

MOST_SKELETONS = 4096
"""Skeletons that are kept at most. Beyond that, conversations with other role sequences are rendered by Jinja."""
MOST_HISTORIES = 8
"""Assistant turns of a layout up to which skeletons are made where each turn's history is asked for: longer layouts
seldom occur twice, and one costs as much as several records."""


LONG = 32
"""Labels of a layout up to which a skeleton is made when it is first seen. Of a longer one it is made the second time:
most of these occur once, and a skeleton costs as much as two conversations."""
TWO_MEMBERS = ("key", "value") * 2
MOST_TRIALS = 8
"""Layouts up to which it is tried whether a template that looks into arguments can be traced with their members."""
MOST_SEEN = 1 << 16
"""Long layouts of which it is known that they were seen."""


class LayoutSkeletons:
    """The skeletons of each layout, under one template.

    Args:
        template, policy: as for the reference.

    Attributes:
        table: the skeletons.
        forbidden: strings that no text that is filled in may hold.
        tags: strings that only an assistant's text may hold, in UTF-8.
        typed: strings with a meaning of their own, whatever the layout: control tokens, and the tags of parts of turns.
        search: finds both, also as JSON writes them.
        with_members: whether layouts shall hold the members of arguments (see `argument_members`), since the template
            looks into these.
        with_order: whether the order of their keys as well.
    """

    def __init__(self, template: ChatTemplate, policy: TrainOn) -> None:
        self._template, self._policy = template, policy
        self._tracers: dict[bool, Tracer] = {}
        """One for conversations that offer tools, and one for the others."""
        self._numbers: dict[Layout, range] = {}
        """The numbers of a layout's skeletons in the table: several where it is unrolled, none where it has none."""
        self._seen_in: dict[int, int] = {}
        """For the hash of a long layout, the number of the record in which it was seen first."""
        self._trials = 0
        """How often it was tried whether the members of arguments help."""
        self.with_members = self.with_order = False
        self.table = SkeletonTable()
        calls = set() if policy.tool_calls else {CALL, CALL_END}
        self.typed = frozenset({*template.reasoning_tags, *template.control.all, *calls})
        self._forbid({*template.reasoning_tags, *template.control.everywhere, *calls})

    def _forbid(self, strings: set[str]) -> None:
        self.forbidden = strings
        tags = {*self._template.control.tags} - strings
        self.tags = frozenset(tag.encode() for tag in tags)
        self.search = StringSearch({form for one in strings | tags for form in (one, json_text(one)[1:-1])})

    def has_none(self, layout: Layout) -> bool:
        """Return whether it was found out that a layout has no skeleton."""
        return layout in self._numbers and not self._numbers[layout]

    def looked_into(self, labels: Set[str]) -> bool:
        """Return whether the template looked into a text with one of some labels (see `Tracer`)."""
        return any(tracer.looked_into & labels for tracer in self._tracers.values())

    def bounds(
        self, conversations: ConversationColumns, records: NDArray[np.int64], *, seen: Set[Layout] = frozenset()
    ) -> NDArray[np.int64]:
        """Return int64[n, 2]: the first of each conversation's skeletons and the one behind the last.

        Skeletons are made where a layout is new, and not too long to be made for one record.

        Args:
            records: int64[n], the record number of each conversation.
            seen: layouts of which it is known that they occur in several records.
        """
        known = self._numbers
        new = {conversations.layouts[number] for number in np.unique(conversations.layout_ids)} - known.keys()
        new -= self._of_one_record(conversations, records, {layout for layout in new - seen if len(layout) > LONG})
        if chosen := sorted(new)[: MOST_SKELETONS - len(known)]:
            made = [self._trace_or_try(layout) for layout in chosen]
            numbers = self.table.add(chain.from_iterable(made))
            ends = accumulate(map(len, made), initial=0)
            known |= {layout: numbers[first:end] for layout, (first, end) in zip(chosen, pairwise(ends), strict=True)}
        found = [known.get(layout, range(0)) for layout in conversations.layouts]
        bounds = np.asarray([(one.start, one.stop) for one in found], dtype=np.int64).reshape(-1, 2)
        return bounds[conversations.layout_ids]

    def _of_one_record(
        self, conversations: ConversationColumns, records: NDArray[np.int64], layouts: set[Layout]
    ) -> set[Layout]:
        """Return those of some layouts that were seen in one record so far, which is noted."""
        found: set[Layout] = set()
        numbers = [number for number, layout in enumerate(conversations.layouts) if layout in layouts]
        rows = np.isin(conversations.layout_ids, numbers)
        for number, record in zip(conversations.layout_ids[rows].tolist(), records[rows].tolist(), strict=True):
            layout = conversations.layouts[number]
            once = self._seen_in.setdefault(hash(layout), record) == record
            (found.add if once else found.discard)(layout)
        if len(self._seen_in) > MOST_SEEN:
            self._seen_in.clear()
        return found

    def _trace_or_try(self, layout: Layout) -> list[Skeleton]:
        """Return the skeletons of a layout; where it has none, find out whether the members of arguments would help."""
        for tracer in self._tracers.values():
            tracer.looked_into.discard(ARGUMENTS)
        made = self._trace(layout)
        waits = self.looked_into(ID_LABELS) and not ID_LABELS.isdisjoint(layout)  # for labels that tell ids apart
        if not self.with_members and not waits and self.looked_into({ARGUMENTS}) and self._trials < MOST_TRIALS:
            self._trials += 1
            self.with_members = bool(self._trace(with_members(layout, TWO_MEMBERS)))
            if not self.with_members and any(tracer.sorts for tracer in self._tracers.values()):
                ordered = with_members(layout, (f"{ORDER}[0, 1]", *TWO_MEMBERS))
                self.with_members = self.with_order = bool(self._trace(ordered))
        return made

    def _trace(self, layout: Layout) -> list[Skeleton]:
        """Return the skeletons of a layout, one for each text that it is trained as.

        There are none where an example shows that the template cannot be traced.
        """
        if layout == (PLAIN_TEXT,):
            return [plain_text_skeleton(self._template.tokens)]
        texts = example_texts(layout)
        try:
            conversation = conversation_of(layout, texts)
            asks = self._policy.asks_histories and bool(self._template.suited(conversation).rewriting.rewrites)
            if asks and sum(turn.role == "assistant" for turn in conversation.turns) > MOST_HISTORIES:
                return []
            tracer = self._tracer(conversation)
            found = train(self._template, conversation, self._policy)
        except RecordError as error:
            if error.reason == "template_error":  # perhaps since no result in the example has the id of a call
                for tracer in self._tracers.values():
                    tracer.looked_into |= ID_LABELS & {*layout}
            return [] if error.reason != "turn_rewritten" or asks else self._refusing(layout, texts, error)
        looked_for = tracer.looked_for_in_histories(layout) if asks else frozenset()
        if looked_for is None or (asks and not self._holds_for_padded(layout, texts, found)):
            return []
        skeletons = []
        absent = set(looked_for)
        notes = tuple(note for note in found.notes if note != TOOLS_IGNORED)
        if conversation.tools and all(text.rendering is not found.whole for text in found.texts):
            whole = tracer.trace(layout, texts, found.whole, ())  # whose words decide which tools are ignored
            if whole is None or unwritten_names(layout, whole):
                return []
            absent |= whole.absent
        for text in found.texts:
            end = len(layout) if text.rendering is found.whole else turns_of(layout)[text.turns[-1]][2]
            own = texts[: len(text_labels(layout[:end]))]
            skeleton = tracer.trace(layout[:end], own, text.rendering, text.spans)
            if skeleton is None or text.rendering.typed:
                return []
            absent |= skeleton.absent
            names = unwritten_names(layout, skeleton) if text.rendering is found.whole else ()
            skeletons.append(replace(skeleton, notes=notes, turns=text.turns, names=names))
        return skeletons if self._forbid_more(absent, conversation) else []

    def _refusing(self, layout: Layout, texts: Sequence[str], error: RecordError) -> list[Skeleton]:
        """Return the skeleton of a layout whose every turn would be trained otherwise than inference meets it.

        What holds for one conversation with it holds for all: the template goes the same way through its program.
        """
        conversation = conversation_of(layout, texts)
        rendering = self._template.render(conversation)
        skeleton = self._tracer(conversation).trace(layout, texts, rendering, ())
        if skeleton is None or rendering.typed:
            return []
        return [replace(skeleton, refusal=error.kept())] if self._forbid_more(skeleton.absent, conversation) else []

    def _forbid_more(self, absent: Iterable[str], conversation: Conversation) -> bool:
        """Forbid strings that are looked for in texts; not where they are words of tools, which many texts hold."""
        more = {*absent} - self.forbidden
        words = all_texts(list(conversation.tools))
        if any(one in words and one not in self._template.suited(conversation).source for one in more):
            return False
        if more:
            self._forbid({*self.forbidden, *more})
        return True

    def _holds_for_padded(self, layout: Layout, texts: Sequence[str], found: TrainedConversation) -> bool:
        """Return whether texts with white space around them have the same turns trained in the same texts.

        A template may strip a text in one rendering and not in another, which shows in such texts alone.
        """
        labels = text_labels(layout)
        for space in ("\n ", " \n"):
            padded = [
                space + text + space if label in (*ROLES, "reasoning", "key", "value") else text
                for label, text in zip(labels, texts, strict=True)
            ]
            try:
                other = train(self._template, conversation_of(layout, padded), self._policy)
            except RecordError:
                return False
            if [one.turns for one in other.texts] != [one.turns for one in found.texts]:
                return False
        return True

    def _tracer(self, conversation: Conversation) -> Tracer:
        offered = bool(conversation.tools)
        if offered not in self._tracers:
            suited = self._template.suited(conversation)
            self._forbid(self.forbidden | suited.reasoning_tags)
            self.typed |= suited.reasoning_tags
            self._tracers[offered] = Tracer(suited)
        return self._tracers[offered]


def conversation_of(layout: Layout, texts: Sequence[str]) -> Conversation:
    """Return the conversation of a layout with these texts."""
    turns, tools = put_together(layout, texts)
    return Conversation(turns=tuple(turns), tools=tuple(tools))
