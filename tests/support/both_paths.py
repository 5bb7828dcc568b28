"""The two implementations of the render stage, whose results have to be the same."""

from functools import cache

from pipelines import as_lists
from template_texts import TOKENS

from sft_shards.formats.columnar import ConversationColumns
from sft_shards.formats.conversation import Conversation
from sft_shards.formats.layouts import take_apart
from sft_shards.formats.templates import ChatTemplate, TrainOn
from sft_shards.preprocess.pipeline.batch import ConversationBatch, RenderedBatch
from sft_shards.preprocess.pipeline.reference_rendering import ReferenceRendering
from sft_shards.preprocess.pipeline.render import BatchRendering


@cache
def compiled(source: str) -> ChatTemplate:
    return ChatTemplate("t", source, TOKENS)


class Both:
    """Both implementations under one template, which must agree on every batch."""

    def __init__(self, source: str | ChatTemplate, policy: TrainOn | None = None) -> None:
        template = compiled(source) if isinstance(source, str) else source
        policy = policy or TrainOn()
        self._reference = ReferenceRendering(template, policy, with_digests=True)
        self.batch = BatchRendering(template, policy, self._reference, with_digests=True)
        self._records = 3

    def render(self, *found: Conversation, in_columns: bool = False) -> tuple[RenderedBatch, int]:
        """What becomes of conversations, and how many of them Jinja rendered."""
        columns, others = ConversationColumns.from_rows({}), dict(enumerate(found))
        if in_columns:
            columns, others = ConversationColumns.from_rows({row: take_apart(one) for row, one in others.items()}), {}
        given_ = ConversationBatch(first_record=self._records, columns=columns, others=others)
        before, self._records = self.batch.fallbacks, self._records + len(found)
        rendered = self.batch.render(given_)
        filled, expected = as_lists(rendered), as_lists(self._reference.render(given_))
        assert filled | {"openings": None} == expected | {"openings": None}
        assert all(any(text.startswith(one) for one in rendered.openings) for text in rendered.texts)
        return rendered, self.batch.fallbacks - before
