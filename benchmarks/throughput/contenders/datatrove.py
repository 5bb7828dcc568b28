"""datatrove: its JsonlReader and MegatronDocumentTokenizer on rendered text."""

from __future__ import annotations

from pathlib import Path

from benchmarks.throughput.contenders.contender import Contender, Sequences, Settings, read_megatron


class MegatronWriter(Contender):
    """The reader and the writer, in one process."""

    def __init__(self, settings: Settings) -> None:
        from datatrove.utils.logging import logger

        super().__init__(settings)
        logger.remove()

    def work(self, source: Path, target: Path) -> None:  # noqa: D102
        from datatrove.pipeline.readers import JsonlReader
        from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

        reader = JsonlReader(str(source), glob_pattern="text.jsonl")
        name = str(Path(self.settings.tokenizer) / "tokenizer.json")
        writer = MegatronDocumentTokenizer(str(target), "out", tokenizer_name_or_path=name, eos_token=None)
        writer.run(reader.run())

    def read(self, target: Path) -> Sequences:  # noqa: D102
        lengths, ids = read_megatron(next(target.glob("*.idx")).with_suffix(""))
        return Sequences(lengths=lengths, ids=ids, mask=None)
