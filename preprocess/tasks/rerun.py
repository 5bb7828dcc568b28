"""The same command on a finished directory: batch systems repeat a job that was preempted at its very end.

The command succeeds where the directory is what it would make: the same configuration, tokenizer, template and
versions, and inputs with the same contents. That is checked: the inputs are read and hashed, which takes a small part
of the time that making the shards took. Anything else is refused with a list of what differs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.reference import template_of
from sft_shards.preprocess.sources import find_sources
from sft_shards.preprocess.sources.stdin import spool
from sft_shards.preprocess.sources.streams import hash_range
from sft_shards.preprocess.tasks.diff import differences
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.losses import check_losses
from sft_shards.preprocess.tasks.output import OutputState, look
from sft_shards.preprocess.tasks.replacement import settle
from sft_shards.preprocess.tasks.template_file import planned_config, template_text
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer
from sft_shards.preprocess.versions import versions

SHOWN = 5
"""Differences that a message names."""


def made_already(
    config: JobConfig, output: Path, *, max_rejects: str | None = None, cache: bool = True
) -> Manifest | None:
    """Return the manifest of a finished directory that this job would make; None where there is no finished one.

    What a job that was stopped right after its manifest has left is removed.

    Raises:
        UsageError: the directory is finished, and another job made it.
        DataError: its manifest is damaged, an input cannot be read, more records were left out than `max_rejects`, or
            another process works there.
    """
    state = look(output)
    if not state.is_complete:
        return None
    manifest = Manifest.read(output)
    if state is OutputState.PUBLISHED:
        with job_lock(output):
            settle(output)
    source = template_text(config, output)
    changed = list(islice(_changes(planned_config(config, source), source, manifest, cache=cache), SHOWN + 1))
    if changed:
        more = "; and more" if len(changed) > SHOWN else ""
        raise UsageError(
            f"{output}: already holds a complete shard directory of another job ({'; '.join(changed[:SHOWN])}{more}); "
            "choose another --output, or give --overwrite"
        )
    check_losses(manifest.counts, {one.path: one.records for one in manifest.sources}, max_rejects, output)
    return manifest


def _changes(config: JobConfig, source: str | None, manifest: Manifest, *, cache: bool) -> Iterator[str]:
    """Say what differs, a short phrase each. Slow comparisons are made only where the quick ones found nothing.

    Args:
        source: the text of the template file that the job names, if it names one.
    """
    made, asked = ({**one, "revision": None} for one in (manifest.config, config.as_dict()))
    changed = differences(made, asked, "config")
    changed += differences(manifest.versions, versions(), "versions")
    if not changed:
        tokenizer = Tokenizer.configured(config, cache=cache)
        changed = differences(manifest.config.get("revision"), tokenizer.revision, "config.revision")
        changed += differences(asdict(manifest.tokenizer), asdict(tokenizer.info()), "tokenizer")
        text = template_of(manifest.template.name, tokenizer, source) or ""
        changed += differences(manifest.template.sha256, hashlib.sha256(text.encode()).hexdigest(), "template.sha256")
    yield from changed or _other_inputs(config, manifest)


def _other_inputs(config: JobConfig, manifest: Manifest) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        found = {source.path: source for source in find_sources(config.inputs, lambda: spool(Path(scratch)))}
        made = {source.path: source for source in manifest.sources}
        for path in [*made, *(path for path in found if path not in made)]:
            if path not in found or path not in made:
                yield f"{path}: {'gone' if path in made else 'new'}"
                continue
            old, new = made[path], found[path]
            before = {"kind": old.kind, "compression": old.compression, "bytes": old.bytes}
            after = {"kind": new.kind, "compression": new.compression, "bytes": new.bytes}
            if changed := differences(before, after):
                yield from (f"{path}: {phrase}" for phrase in changed)
                continue
            try:
                same = all(hash_range(new.file, part.begin, part.end) == part.sha256 for part in old.parts)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
            if not same:
                yield f"{path}: other contents"
