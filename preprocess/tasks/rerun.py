"""The same command on a finished directory: a batch system gives a job again that was preempted at its very end.

It succeeds where the directory is what the command would make: same configuration, same tokenizer, template and
versions, and inputs with the same contents. That is looked at, not believed: the inputs are read and hashed, which
takes a small part of the time that making the shards took. Anything else is refused with what differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards import Manifest
from sft_shards.formats.shards.manifest import NAME
from sft_shards.preprocess.config import JobConfig
from sft_shards.preprocess.pipeline.pipeline import load_template
from sft_shards.preprocess.sources import find_sources
from sft_shards.preprocess.sources.stdin import spool
from sft_shards.preprocess.sources.streams import hash_range
from sft_shards.preprocess.tasks.finalize import check_rejects
from sft_shards.preprocess.tasks.lock import job_lock
from sft_shards.preprocess.tasks.plan import differences
from sft_shards.preprocess.tasks.versions import versions
from sft_shards.preprocess.tasks.workdir import WORK, clear
from sft_shards.preprocess.tokenizer.tokenizer import Tokenizer

SHOWN = 5
PUBLISHED = ("kind", "compression", "bytes")
"""What is looked at before contents are."""


def made_already(config: JobConfig, output: Path, *, max_rejects: str | None = None) -> Manifest | None:
    """The manifest of a directory that is finished and what this job makes; None where there is no finished one.

    What a job that was stopped between its manifest and its end has left is cleared up.

    Raises:
        UsageError: the directory is finished, and another job made it.
        DataError: its manifest is damaged, an input cannot be read, more records were left out than `max_rejects`, or
            somebody works there.
    """
    if not (output / NAME).is_file():
        return None
    if (output / WORK).exists():
        with job_lock(output):
            clear(output)
    manifest = Manifest.read(output)
    changed = list(islice(_changes(config, manifest), SHOWN + 1))
    if changed:
        more = "; and more" if len(changed) > SHOWN else ""
        raise UsageError(
            f"{output}: already holds a complete shard directory of another job ({'; '.join(changed[:SHOWN])}{more}); "
            "choose another --output, or give --overwrite"
        )
    check_rejects(manifest.counts, max_rejects, output)
    return manifest


def _changes(config: JobConfig, manifest: Manifest) -> Iterator[str]:
    """What differs, a short phrase each; what takes long to see is not looked at where something differs already."""
    changed = differences(manifest.config, config.as_dict(), "config")
    changed += differences(manifest.versions, versions(), "versions")
    if not changed:
        tokenizer = Tokenizer(config.tokenizer, trust_remote_code=config.trust_remote_code)
        changed = differences(asdict(manifest.tokenizer), asdict(tokenizer.info()), "tokenizer")
        template = load_template(manifest.template["name"], tokenizer)
        changed += differences(manifest.template["sha256"], template.sha256, "template.sha256")
    yield from changed or _other_inputs(config, manifest)


def _other_inputs(config: JobConfig, manifest: Manifest) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        found = {source.path: source for source in find_sources(config.inputs, lambda: spool(Path(scratch)))}
        made = {source["path"]: source for source in manifest.sources}
        for path in [*made, *(path for path in found if path not in made)]:
            if path not in found or path not in made:
                yield f"{path}: {'gone' if path in made else 'new'}"
                continue
            old, new = made[path], asdict(found[path])
            changed = [phrase for key in PUBLISHED for phrase in differences(old[key], new[key], f"{path}: {key}")]
            yield from changed
            parts = [] if changed else old["parts"]
            try:
                same = all(hash_range(new["file"], one["begin"], one["end"]) == one["sha256"] for one in parts)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
            if not same:
                yield f"{path}: other contents"
