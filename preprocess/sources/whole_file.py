"""What kinds of input share whose files are read whole, as one part."""

from __future__ import annotations

from sft_shards.preprocess.sources.partition import Part
from sft_shards.preprocess.sources.source import Source


class WholeFile:
    """The part of `InputKind` that says how files are cut, for a kind of which nothing in the middle can be a cut."""

    def keeps_parts_when_appended(self, source: Source) -> bool:
        """Return False: there is one part, which grows with the file."""
        return False

    def whole(self, source: Source) -> Part:
        """Return all of the file as one part."""
        return Part(end=source.bytes)

    def cut(self, source: Source, target: int) -> list[Part]:
        """Return one part, whatever the target."""
        return [self.whole(source)]
